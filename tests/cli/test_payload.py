"""The starting event is made of an example, of JSON, and of single changes; a mistake in it is never sent."""

from __future__ import annotations

import io
import json

import pytest
from pydantic import BaseModel, Field

from services.events import OrderCreated, order_saga
from toolkit import Answer, SagaId
from toolkit.cli.exit_codes import UsageError
from toolkit.cli.payload import as_declared, build_events, fields_of
from toolkit.declaration.events import documented_example
from toolkit.declaration.redaction import schema_of


class Line(BaseModel):
    text: str | None = None
    number: int = 0


class Reviewed(Answer, owner="officer"):
    paper_id: SagaId
    note: str | None = None
    first: Line = Line()
    lines: tuple[Line, ...] = ()
    words: dict[str, str] = Field({})
    share: float = 0


def order(*changes: str, data: str | None = None) -> OrderCreated:
    """Return the one order that these arguments make."""
    (event,) = build_events(order_saga, data, changes, 1).values()
    assert isinstance(event, OrderCreated)
    return event


def test_documented_example_is_the_default_data():
    first, second = order(), order()

    assert first.customer_id == documented_example(OrderCreated)["customer_id"]
    assert len({first.order_id, second.order_id, documented_example(OrderCreated)["order_id"]}) == 3


def test_so_many_sagas_have_so_many_ids():
    events = build_events(order_saga, None, [], 50)

    assert len(events) == 50
    assert all(event.order_id == saga_id for saga_id, event in events.items())


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("order_id=order-7", lambda event: event.order_id == "order-7"),
        ("order_id=1007", lambda event: event.order_id == "1007"),
        ("order_id=true", lambda event: event.order_id == "true"),
        ("order_id=1e5", lambda event: event.order_id == "1e5"),
        ("shipping_address.postal_code=01234", lambda event: event.shipping_address.postal_code == "01234"),
        ("shipping_address.postal_code=12345", lambda event: event.shipping_address.postal_code == "12345"),
        ("items.0.sku=7", lambda event: event.items[0].sku == "7"),
        ("items.0.sku=SOLD-OUT", lambda event: event.items[0].sku == "SOLD-OUT"),
        ("items.1.quantity=9", lambda event: event.items[1].quantity == 9),
        ('items=[{"sku": "TRAY", "quantity": 2}]', lambda event: event.items[0].sku == "TRAY"),
        ("shipping_address.country=AQ", lambda event: event.shipping_address.country == "AQ"),
        ("customer_email=a=b@bounce.example", lambda event: event.customer_email == "a=b@bounce.example"),
    ],
)
def test_a_change_is_put_in_its_place(change, read):
    event = order(change)

    assert read(event)


def test_a_change_leaves_the_example_as_it_is():
    before = json.dumps(documented_example(OrderCreated))

    order("items.0.sku=SOLD-OUT", "shipping_address.country=AQ")

    assert json.dumps(documented_example(OrderCreated)) == before


def test_next_place_of_a_list_can_be_set():
    event = order("items.2.sku=TRAY", "items.2.quantity=1")

    assert [item.sku for item in event.items] == ["TEA-POT", "TEA-CUP", "TRAY"]


def test_data_comes_from_argument_file_or_stdin(tmp_path, monkeypatch):
    text = json.dumps(documented_example(OrderCreated) | {"order_id": "order-8"})
    (tmp_path / "order.json").write_text(text)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))

    orders = [order(data=text), order(data=f"@{tmp_path}/order.json"), order(data="-")]

    assert [each.order_id for each in orders] == ["order-8"] * 3


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ("{", "--data is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("9" * 5_000, "--data is not JSON"),
        ("[1]", "--data is a JSON list, but an event is an object"),
        ("@/nowhere/order.json", "the file can't be read"),
        ("{}", "this is no OrderCreated: customer_id: Field required"),
    ],
)
def test_malformed_data_is_wrong_use(data, fault):
    with pytest.raises(UsageError, match=fault):
        order(data=data)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("items", "sets nothing: write key=value"),
        ("=1", "sets nothing: write key=value"),
        ("items.7.sku=TRAY", "there is no '7' in what is a list of 2"),
        ("items.first.sku=TRAY", "there is no 'first' in what is a list of 2"),
        ("customer_id.name=Ada", "neither an object nor a list"),
        ("items.0.quantity=0", "items.0.quantity: Input should be greater than or equal to 1"),
        ("items.0.quantity=" + "9" * 5_000, "items.0.quantity"),
        ("items." + "9" * 5_000 + ".sku=TRAY", "in what is a list of 2"),
        ("items.²=TRAY", "in what is a list of 2"),
        ("a." * 50_000 + "b=1", "nested too deeply"),
        ("a=" + "[" * 100_000, "nested too deeply"),
        ("order_id=no spaces", "order_id: String should match pattern"),
        ("shiping_address.country=AQ", "OrderCreated has no field shiping_address"),
        ("shipping_address.contry=AQ", "OrderCreated has no field shipping_address.contry"),
        ("items.0.colour=red", "OrderCreated has no field items.0.colour"),
    ],
)
def test_senseless_change_is_named(change, fault):
    with pytest.raises(UsageError) as caught:
        order(change)

    assert fault in str(caught.value)


def test_several_sagas_can_not_share_one_id():
    with pytest.raises(UsageError, match="3 sagas can't share the order_id 'order-7'"):
        build_events(order_saga, None, ["order_id=order-7"], 3)


def test_mistake_is_named_without_sensitive_data():
    data = json.dumps(documented_example(OrderCreated) | {"customer_email": 98765432101})

    with pytest.raises(UsageError) as caught:
        order(data=data)

    assert "customer_email: Input should be a valid string" in str(caught.value)
    assert "98765432101" not in str(caught.value)


@pytest.mark.parametrize("change", ["customer_email.x=quagga", "items.0.sku.x=quagga"])
def test_change_without_place_is_named_without_value(change):
    with pytest.raises(UsageError) as caught:
        order(change)

    assert change.partition("=")[0] in str(caught.value)
    assert "quagga" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("note=5", {"note": "5"}),
        ("note=true", {"note": "true"}),
        ("share=5", {"share": 5}),
        ("first.text=007", {"first": {"text": "007"}}),
        ("first.number=7", {"first": {"number": 7}}),
        ("words.en=5", {"words": {"en": "5"}}),
        ("unknown=5", {"unknown": 5}),
    ],
)
def test_an_answers_change_has_the_type_of_its_field(change, value):
    assert as_declared(*fields_of(None, [change]), schema_of(Reviewed)) == value


def test_a_text_in_a_list_stays_a_text():
    given = fields_of('{"lines": [{"text": "one"}]}', ["lines.0.text=1", "lines.1.number=2"])

    assert as_declared(*given, schema_of(Reviewed)) == {"lines": [{"text": "1"}, {"number": 2}]}


def test_fields_that_are_nested_too_deeply_are_wrong_use():
    with pytest.raises(UsageError, match="nested too deeply"):
        fields_of("[" * 100_000, [])
