"""Seeded changes of shipped sagas: bad ones, each with what has to be found, and harmless ones."""

from __future__ import annotations

from tests.unit.compatibility.seeded import (
    ASKED,
    PURCHASES,
    Found,
    Seed,
    all_of,
    declarations,
    event_named,
    event_with,
    field_with,
    handler_with,
    moved,
    runs_on,
    saga_with,
    step_named,
    with_field,
    with_step,
    with_upcaster,
    without,
    without_field,
)

TEXT = {"type": "string"}
DEPLOYED = "the new release is deployed"
ASKED_FOR_PAYMENT = (
    "fulfillment asks reserve_inventory", "reserve_inventory completes", "fulfillment asks process_payment",
)  # fmt: skip
#: A field that lists its values, for changes of the list.
CARRIER = with_field("PaymentProcessed", "carrier", {"type": "string", "enum": ["post", "air"]}, required=True)

BAD: dict[str, tuple[Seed, Found]] = {
    "a required field is new": (
        Seed(with_field("PaymentProcessed", "currency", TEXT, required=True)),
        Found("required field", "shipping", "create_shipment", "`currency` is required, and is not sent"),
    ),
    "and the saga stands still": (
        Seed(with_field("PaymentProcessed", "currency", TEXT, required=True)),
        Found(
            "no end", "shipping", "create_shipment",
            "a saga that waits in create_shipment (shipping) after PaymentProcessed can never end",
            ("reserve_inventory completes", "process_payment completes", DEPLOYED),
        ),
    ),
    "the sender drops what a reader requires": (
        Seed(without_field("PaymentProcessed", "shipping_address", only="payment")),
        Found("required field", "shipping", "create_shipment", "as the new payment sends it: `shipping_address`"),
    ),
    "both drop what the old reader requires": (
        Seed(without_field("PaymentProcessed", "shipping_address")),
        Found("required field", "shipping", "create_shipment", "of the new payment while shipping is the old one"),
    ),
    "a value is taken from a list": (
        Seed(field_with("PaymentProcessed", "carrier", enum=["post"]), before=CARRIER),
        Found("narrowed", "shipping", "create_shipment", "`carrier` may be 'air', which is not among 'post'"),
    ),
    "a value is sent before it is taken": (
        Seed(field_with("PaymentProcessed", "carrier", only="payment", enum=["post", "air", "sea"]), before=CARRIER),
        Found("narrowed", "shipping", "create_shipment", "`carrier` may be 'sea', which is not among 'post', 'air'"),
    ),
    "texts become shorter": (
        Seed(field_with("ShipmentCreated", "tracking_number", maxLength=20)),
        Found("narrowed", "notification", "send_confirmation", "may have 200 characters, and at most 20 are taken"),
    ),
    "numbers become larger": (
        Seed(field_with("PaymentProcessed", "amount", minimum=1)),
        Found("narrowed", "shipping", "create_shipment", "`amount` may be 0, and at least 1 is taken"),
    ),
    "a pattern is another": (
        Seed(field_with("ShipmentCreated", "tracking_number", pattern="^[0-9]+$")),
        Found("narrowed", "notification", "send_confirmation", "is taken by the rule pattern '^[0-9]+$'"),
    ),
    "a format is new": (
        Seed(field_with("InventoryReserved", "reservation_id", format="uuid")),
        Found("narrowed", "payment", "process_payment", "is taken by the rule format 'uuid', and written without it"),
    ),
    "a type is another": (
        Seed(field_with("PaymentProcessed", "amount", type="string", minimum=None)),
        Found("type changed", "shipping", "create_shipment", "`amount` is sent as integer, and taken as string"),
    ),
    "a field is renamed": (
        Seed(all_of(
            without_field("PaymentProcessed", "amount"),
            with_field("PaymentProcessed", "total", {"type": "integer", "minimum": 0}, required=True),
        )),
        Found("field renamed", "shipping", "create_shipment", "`total` is required, and named amount in what is sent"),
    ),
    "null is not taken any more": (
        Seed(with_field("InventoryReleased", "customer_email", TEXT, required=False)),
        Found(
            "null not taken", "notification", "send_cancellation_notice",
            "`customer_email` may be null, and only string is taken",
        ),
    ),
    "unknown fields are forbidden": (
        Seed(all_of(
            with_field("PaymentProcessed", "note", TEXT, required=False, only="payment"),
            lambda contracts: next(declarations(contracts, "PaymentProcessed", "shipping"))["json_schema"].update(
                additionalProperties=False
            ),
        )),
        Found("unknown field", "shipping", "create_shipment", "`note` is sent, and no unknown field is taken"),
    ),
    "a version is raised": (
        Seed(event_with("PaymentProcessed", version=2)),
        Found(
            "version raised", "shipping", "create_shipment",
            "version 1 is sent, version 2 is taken, and no upcaster leads there",
        ),
    ),
    "what a step emitted is not read for its undoing": (
        Seed(event_with("PaymentProcessed", version=2, only="payment")),
        Found("version raised", "payment", "refund_payment", "refund_payment (payment) does not read PaymentProcessed"),
    ),
    "a version is lowered": (
        Seed(event_with("PaymentProcessed", version=1), before=event_with("PaymentProcessed", version=2)),
        Found("version lowered", "shipping", "create_shipment", "version 2 is sent, version 1 is taken"),
    ),
    "an upcaster takes another field": (
        Seed(all_of(
            event_with("PaymentProcessed", version=2),
            with_upcaster("PaymentProcessed", 1, 2, {"type": "object", "properties": {"sum": {}}, "required": ["sum"]}),
        )),
        Found("required field", "shipping", "create_shipment", "`sum` is required, and is not sent"),
    ),
    "a sensitive mark is lost": (
        Seed(event_with("InventoryReserved", sensitive=["customer_email"])),
        Found(
            "sensitive mark lost", "payment", "process_payment",
            "`shipping_address.street` of InventoryReserved are not sensitive any more in payment",
        ),
    ),
    "an event is renamed": (
        Seed(event_named("PaymentProcessed", "PaymentTaken")),
        Found("event renamed", "payment", "process_payment", "emits PaymentTaken now, and create_shipment (shipping)"),
    ),
    "and nothing takes the old one": (
        Seed(event_named("PaymentProcessed", "PaymentTaken")),
        Found(
            "no end", "shipping", "create_shipment",
            "create_shipment does not run on PaymentProcessed any more",
            ("reserve_inventory completes", "process_payment completes", DEPLOYED),
        ),
    ),
    "an event of the way back is renamed": (
        Seed(event_named("ShipmentCancelled", "ShipmentCalledBack")),
        Found(
            "no end", "payment", "refund_payment",
            "a saga that waits in refund_payment (payment) after ShipmentCancelled can never end",
            (
                "reserve_inventory completes", "process_payment completes", "create_shipment completes",
                "send_confirmation refuses with NotificationFailed",
                "cancel_shipment undoes create_shipment on NotificationFailed", DEPLOYED,
            ),
        ),
    ),
    "an event has another owner": (
        Seed(event_with("PaymentProcessed", owner="billing", routing_key="billing.PaymentProcessed")),
        Found("owner changed", "shipping", "create_shipment", "consumed as billing.PaymentProcessed"),
    ),
    "a step is renamed": (
        Seed(step_named("process_payment", "take_payment")),
        Found("step renamed", "payment", "process_payment", "process_payment (payment) is named take_payment now"),
    ),
    "and runs once more": (
        Seed(step_named("process_payment", "take_payment")),
        Found(
            "undone too early", "payment", "process_payment", "while process_payment (payment) still stands",
            (
                "reserve_inventory completes", "process_payment completes", DEPLOYED,
                "take_payment refuses with PaymentFailed",
                "release_inventory undoes reserve_inventory on PaymentFailed",
            ),
        ),
    ),
    "a step is removed": (
        Seed(all_of(without("create_shipment", "cancel_shipment"), runs_on("send_confirmation", "PaymentProcessed"),
                    runs_on("refund_payment", "NotificationFailed"))),
        Found("step removed", "shipping", "create_shipment", "shipping does not start while a saga stands there"),
    ),
    "a step is moved": (
        Seed(moved("payment", "inventory", "process_payment", "refund_payment")),
        Found("step moved", "payment", "process_payment", "has moved from payment to inventory"),
    ),
    "a compensation is removed": (
        Seed(without("refund_payment")),
        Found("compensation removed", "payment", "refund_payment", "process_payment (payment) has no compensation"),
    ),
    "a step that may refuse is put between": (
        Seed(all_of(
            with_step("tax", "add_tax", ("PaymentProcessed",), "TaxAdded", "TaxRefused"),
            with_step("tax", "drop_tax", ("ShipmentFailed|ShipmentCancelled",), "TaxDropped", of="add_tax"),
            runs_on("create_shipment", "TaxAdded"),
            runs_on("refund_payment", "TaxRefused|TaxDropped"),
        )),
        Found(
            "undone too early", "tax", "add_tax",
            "refund_payment (payment) undoes process_payment of a saga in flight too early, while create_shipment",
            (
                "reserve_inventory completes", "process_payment completes", "create_shipment completes", DEPLOYED,
                "add_tax refuses with TaxRefused", "refund_payment undoes process_payment on TaxRefused",
            ),
        ),
    ),
    "the field of the id is another": (
        Seed(saga_with(id_field="number")),
        Found("saga id changed", "inventory", "reserve_inventory", "the id of order is in number now"),
    ),
    "the saga has another type": (
        Seed(saga_with(name="purchase")),
        Found("saga removed", "inventory", "reserve_inventory", "no service takes part in the saga order any more"),
    ),
    "an answer needs more": (
        Seed(with_field("Approved", "level", TEXT, required=True), of=PURCHASES),
        Found("required field", "approvals", "decide_purchase", "does not read Approved as client sent it before"),
    ),
    "a coordinator takes over": (
        Seed(lambda contracts: [each.update(asked_by={"order": "fulfillment"}) for each in contracts.values()]),
        Found("coordinator changed", "fulfillment", "reserve_inventory", "fulfillment asks the steps of order now"),
    ),
    "an asked step is renamed": (
        Seed(step_named("process_payment", "take_payment"), of=ASKED),
        Found(
            "no end", "payment", "process_payment",
            "a saga that waits for process_payment (payment), asked by fulfillment, can never end",
            (*ASKED_FOR_PAYMENT, "fulfillment gives process_payment up when the time is up", DEPLOYED),
        ),
    ),
    "an asked step's event is another version": (
        Seed(event_with("PaymentProcessed", version=2), of=ASKED),
        Found(
            "no end", "payment", "process_payment", "PaymentProcessed is not read as the old release sent it",
            (*ASKED_FOR_PAYMENT, "process_payment completes", DEPLOYED),
        ),
    ),
    "an asked step can't be undone any more": (
        Seed(without("refund_payment"), of=ASKED),
        Found(
            "no end", "payment", "process_payment", "process_payment has no compensation any more",
            (
                *ASKED_FOR_PAYMENT, "process_payment completes",
                "fulfillment gives process_payment up when the time is up", DEPLOYED,
            ),
        ),
    ),
}  # fmt: skip

HARMLESS: dict[str, Seed] = {
    "nothing changes": Seed(lambda contracts: None),
    "an optional field is new": Seed(
        with_field("PaymentProcessed", "note", {"type": "string", "default": ""}, required=False)
    ),
    "a step that old sagas never reach is new": Seed(
        with_step("payment", "refuse_card", ("CardBlacklisted",), "CardRefused")
    ),
    "a value is taken before it is sent": Seed(
        field_with("PaymentProcessed", "carrier", only="shipping", enum=["post", "air", "sea"]), before=CARRIER
    ),
    "a timeout is longer": Seed(handler_with("process_payment", timeout=100.0)),
    "a description is another": Seed(event_with("PaymentProcessed", description="Money.")),
    "a saga is new": Seed(
        lambda contracts: contracts.update({f"{name} too": each for name, each in PURCHASES.items()})
    ),
    "a compensation's function is renamed": Seed(handler_with("refund_payment", name="give_back")),
    "a step that can't refuse is put between": Seed(
        all_of(
            with_step("tax", "add_tax", ("InventoryReserved",), "TaxAdded"),
            with_step("tax", "drop_tax", ("PaymentFailed|PaymentRefunded",), "TaxDropped", of="add_tax"),
            runs_on("release_inventory", "TaxDropped"),
            runs_on("process_payment", "TaxAdded"),
        )
    ),
    "a version is raised where an upcaster leads": Seed(
        all_of(
            event_with("PaymentProcessed", version=2, only="shipping"),
            with_upcaster("PaymentProcessed", 1, 2, None, only="shipping"),
        )
    ),
    "a version is raised everywhere, and an upcaster leads there": Seed(
        all_of(event_with("PaymentProcessed", version=2), with_upcaster("PaymentProcessed", 1, 2, None))
    ),
    "an event is renamed, and both are taken": Seed(
        all_of(
            event_named("PaymentProcessed", "PaymentTaken", only="shipping"),
            with_step("shipping", "book_carrier", ("PaymentProcessed",), "CarrierBooked"),
            without("book_carrier"),
            runs_on("create_shipment", "PaymentProcessed|PaymentTaken"),
        )
    ),
    "an asked step's timeout is longer": Seed(handler_with("process_payment", timeout=100.0), of=ASKED),
    "new sagas have another plan": Seed(
        lambda contracts: contracts["fulfillment"]["plans"]["order"][0].update(timeouts={"process_payment": 5.0}),
        of=ASKED,
    ),
}
