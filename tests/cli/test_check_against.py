"""`saga check --against` compares contracts with those of what runs, in files and over HTTP, and fails a bad merge."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator

from tests.unit.compatibility.changes import BAD, HARMLESS
from tests.unit.compatibility.seeded import ORDER, Contracts, handler_with

SCHEMA = Path(__file__).parents[1] / "schemas" / "sarif-2.1.0.json.gz"
REQUIRED = BAD["a required field is new"][0]
Written = Callable[[str, Contracts], list[str]]


@pytest.fixture
def written(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Write contracts into a directory of this name, and return the files; the command runs beside it."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, contracts: Contracts) -> list[str]:
        Path(name).mkdir(exist_ok=True)
        for service, contract in contracts.items():
            Path(name, f"{service}.json").write_text(json.dumps(contract, indent=2))
        return [f"{name}/{service}.json" for service in contracts]

    return write


@pytest.fixture
def bad(written: Written) -> list[str]:
    """The files of a release that requires a new field; those of what runs are in `running`."""
    old, new = REQUIRED.releases()
    written("running", old)
    return written("contracts", new)


def test_contracts_from_the_command_are_compatible_with_themselves(saga, data_dir, tmp_path):
    for service in ORDER:
        (tmp_path / f"{service}.json").write_text(saga("contract", service).stdout)
    files = [str(tmp_path / f"{service}.json") for service in ORDER]

    alone, compared = saga("check", *files), saga("check", *files, "--against", str(tmp_path))

    assert (alone.exit_code, compared.exit_code) == (0, 0)
    assert compared.stdout.startswith(alone.stdout.partition(" in ")[0])
    assert (
        f"✓ saga order against {tmp_path}: compatible, and what is in flight ends right, 152 states" in compared.stdout
    )


def test_a_bad_change_ends_with_1_and_its_story(saga, bad):
    result = saga("check", *bad, "--against", "running")

    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[1].startswith("✗ saga order against running: 3 findings, 181 states in ")
    begin = next(number for number, line in enumerate(lines) if line.startswith("no end: "))
    assert lines[begin + 1 : begin + 5] == [
        "  1. reserve_inventory completes",
        "  2. process_payment completes",
        "  3. the new release is deployed",
        "  change create_shipment (shipping): Give currency a default in PaymentProcessed",
    ]
    assert [line.split() for line in lines[-3:]] == [
        ["event", "from", "to", "change", "in", "flight", "afterwards", "while", "deployed"],
        ["PaymentProcessed", "payment", "payment", "adds", "currency", "not", "read", "read", "-"],
        ["PaymentProcessed", "payment", "shipping", "adds", "currency", "not", "read", "read", "read"],
    ]


@pytest.mark.parametrize("name", ["a step is renamed", "an answer needs more", "an asked step is renamed"])
def test_each_kind_of_bad_change_ends_with_1(saga, written, name):
    old, new = BAD[name][0].releases()
    written("running", old)

    assert saga("check", *written("contracts", new), "--against", "running").exit_code == 1


@pytest.mark.parametrize("name", ["an optional field is new", "a value is taken before it is sent", "a saga is new"])
def test_each_kind_of_harmless_change_ends_with_0(saga, written, name):
    old, new = HARMLESS[name].releases()
    written("running", old)

    result = saga("check", *written("contracts", new), "--against", "running")

    assert result.exit_code == 0, result.stdout


def test_running_services_are_compared_with_the_code(saga, logs, serve):
    urls = {name: serve(name, url) for name, url in logs.items()}
    named = [f"--against={url}" for url in urls.values()]
    with_paths = [f"--against={url}/contract" for url in urls.values()]
    with_names = [f"--against={name}={url}" for name, url in urls.items()]

    results = [saga("check", *each, env={"SAGA_API_TOKEN": ""}) for each in (named, with_paths, with_names)]

    assert [each.exit_code for each in results] == [0, 0, 0], results[0].output
    assert all("compatible, and what is in flight ends right" in each.stdout for each in results)


def test_a_bad_change_of_running_services_is_found(saga, logs, serve, bad):
    """The services on the machine are the old release; the files have the new one."""
    urls = [f"--against={serve(name, url)}" for name, url in logs.items()]

    result = saga("check", *bad, *urls)

    assert result.exit_code == 1
    assert "a saga that waits in create_shipment (shipping) after PaymentProcessed can never end" in result.stdout


def test_one_service_is_compared_with_all_others(saga, bad):
    whole = saga("check", "contracts/shipping.json", "--against", "running")
    partial = saga("check", "contracts/shipping.json", "--against", "running", "--partial", "-o", "json")

    *_, change = json.loads(partial.stdout)
    assert (whole.exit_code, partial.exit_code) == (1, 1)
    assert "step removed: process_payment (payment) is gone" in whole.stdout
    assert {each["rule"] for each in change["findings"]} == {"required field", "no end"}


def test_an_order_of_deployment_is_taken_into_account(saga, written):
    old, new = BAD["both drop what the old reader requires"][0].releases()
    written("running", old)
    files = written("contracts", new)

    free = saga("check", *files, "--against", "running")
    ordered = saga("check", *files, "--against", "running", "--order", "shipping")

    assert (free.exit_code, ordered.exit_code) == (1, 0)
    assert "change create_shipment (shipping): Deploy shipping before payment: --order shipping" in free.stdout


def test_what_is_kept_for_sagas_in_flight_is_noted(saga, written):
    seed = HARMLESS["an event is renamed, and both are taken"]
    old, new = seed.releases()
    new["payment"] = json.loads(json.dumps(new["payment"]).replace("PaymentProcessed", "PaymentTaken"))
    handler_with("refund_payment", original=False)(new)
    written("running", old)

    result = saga("check", *written("contracts", new), "--against", "running", "-o", "json")

    sagas, change = json.loads(result.stdout)
    assert result.exit_code == 0, result.stdout
    assert sagas["findings"] == []
    (note,) = change["findings"]
    assert (note["level"], note["rule"], note["function"]) == ("note", "kept for sagas in flight", "create_shipment")
    assert note["message"] == "create_shipment (shipping) runs on PaymentProcessed, and no service emits it"


def test_programs_get_each_edge_and_finding(saga, bad):
    result = saga("check", *bad, "--against", "running", "-o", "json")

    _, change = json.loads(result.stdout)
    assert (change["saga"], change["against"], change["is_compatible"], change["is_complete"]) == (
        "order", ["running"], False, True,
    )  # fmt: skip
    wanted = ("PaymentProcessed", "shipping", "in flight")
    (edge,) = [each for each in change["edges"] if (each["event"], each["reader"], each["when"]) == wanted]
    assert (edge["sender"], edge["functions"]) == ("payment", ["create_shipment"])
    assert (edge["changes"], edge["is_compatible"]) == (["adds currency"], False)
    assert edge["faults"][0]["text"] == "is required, and is not sent"
    assert {each["rule"] for each in change["findings"]} == {"required field", "no end"}


def test_sarif_is_valid_and_names_lines(saga, bad):
    validator = Draft4Validator(json.loads(gzip.decompress(SCHEMA.read_bytes())))

    result = saga("check", *bad, "--against", "running", "-o", "sarif")
    log = json.loads(result.stdout)

    assert result.exit_code == 1
    assert [error.message for error in validator.iter_errors(log)] == []
    (run,) = log["runs"]
    assert [each["id"] for each in run["tool"]["driver"]["rules"]] == ["required-field", "no-end"]
    place = run["results"][-1]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "contracts/shipping.json"
    named = Path("contracts/shipping.json").read_text().splitlines()[place["region"]["startLine"] - 1]
    assert named.strip() == '"name": "create_shipment",'


def test_sarif_without_findings_is_valid(saga, data_dir):
    validator = Draft4Validator(json.loads(gzip.decompress(SCHEMA.read_bytes())))

    log = json.loads(saga("check", "-o", "sarif").stdout)

    assert [error.message for error in validator.iter_errors(log)] == []
    assert log["runs"][0]["results"] == []


def test_github_shows_findings_at_their_lines(saga, bad):
    lines = saga("check", *bad, "--against", "running", "-o", "github").stdout.splitlines()

    assert len(lines) == 3
    assert lines[2].startswith("::error file=contracts/shipping.json,line=")
    assert ",title=no end in saga order::a saga that waits in create_shipment (shipping) after " in lines[2]
    assert lines[2].endswith(
        "%0A  3. the new release is deployed%0AChange create_shipment (shipping): "
        "Give currency a default in PaymentProcessed."
    )


def test_github_shows_findings_of_code_in_the_code(saga, data_dir):
    (line, *_) = saga("check", "payment", "-o", "github").stdout.splitlines()

    assert line.startswith("::error file=services/payment/steps.py,line=")


def test_a_note_is_no_error(saga, written):
    new: Contracts = json.loads(json.dumps(ORDER))
    new["payment"]["handlers"][0]["timeout"] = 1.0
    written("running", ORDER)
    files = written("contracts", new)

    result = saga("check", *files, "--against", "running", "-o", "github")
    log = json.loads(saga("check", *files, "--against", "running", "-o", "sarif").stdout)

    assert result.exit_code == 0
    assert result.stdout.startswith("::notice file=contracts/payment.json,line=")
    assert [each["level"] for each in log["runs"][0]["results"]] == ["note"]


def test_an_unfinished_exploration_of_a_change_ends_with_4(saga, written):
    files = written("contracts", ORDER)

    result = saga("check", *files, "--against", "contracts", "--most-states", "100")

    assert result.exit_code == 4
    assert "? saga order against contracts: nothing is proved: more than " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--against", "nowhere"], "--against 'nowhere' is not there"),
        (
            ["--against", "empty"],
            "empty holds no contracts: write each by `saga contract SERVICE > empty/SERVICE.json`",
        ),
        (["--against", "broken.json"], "broken.json holds no contract"),
        (["--against", "contracts", "--against", "contracts"], "--against names two contracts of inventory"),
        (["contracts/payment.json", "--against", "contracts"], "the new release names two contracts of payment"),
        (["--against", "contracts", "--order", "warehouse"], "--order names warehouse, and there is no such service"),
        (["--rolling"], "name what runs by --against"),
        (["--against", "http://[:1"], "is no URL"),
    ],
)
def test_wrong_use_of_a_comparison_ends_with_2(saga, written, arguments, text):
    files = written("contracts", ORDER)
    written("empty", {})
    Path("broken.json").write_text("{}")

    result = saga("check", *files, *arguments)

    assert result.exit_code == 2
    assert text in result.stderr


def test_a_service_that_is_away_can_not_be_compared(saga, written):
    files = written("contracts", ORDER)

    result = saga("check", *files, "--against", "http://127.0.0.1:1")

    assert result.exit_code == 3
    assert "http://127.0.0.1:1 does not answer" in result.stderr


def test_what_answers_without_a_contract_is_named(saga, written, logs, serve):
    files = written("contracts", ORDER)
    url = serve("payment", logs["payment"])

    result = saga("check", *files, "--against", f"{url}/openapi.json")

    assert result.exit_code == 3
    assert "answers 404" in result.stderr or "is not a service" in result.stderr


def rows(result: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_each_line_of_json_is_a_saga_or_its_change(saga, bad):
    sagas, change = rows(saga("check", *bad, "--against", "running", "-o", "jsonl"))

    assert (sagas["saga"], change["saga"]) == ("order", "order")
    assert ("against" in sagas, "against" in change) == (False, True)
