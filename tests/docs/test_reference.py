"""The tables of the reference and of the protocol page are those of the code."""

from __future__ import annotations

import re

from tests.docs.pages import DOCS, PROJECT, README, blocks, first_column, rows, section
from toolkit import Settings
from toolkit.protocol.fence import TRANSITIONS, Arrival, Decision, StepState, decide
from toolkit.tracking.step_status import Status

PROTOCOL = DOCS / "explanation" / "protocol.md"
SETTINGS = DOCS / "reference" / "settings.md"


def test_settings_reference_has_exactly_the_settings():
    known = [f"SAGA_{name.upper()}" for name in Settings.model_fields]

    assert first_column(section(SETTINGS, "Of every service")) == known
    assert set(first_column(section(README, "Settings"))) < set(known)


def test_compose_variables_and_defaults_are_documented():
    compose = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", (PROJECT / "compose.yaml").read_text()))
    named = {cells[0].strip("`"): cells[1] for cells in rows(section(SETTINGS, "Of compose.yaml"))}
    ports = {cells[0].strip("`"): cells[1] for cells in rows(section(README, "Containers"))}

    assert named.keys() == compose.keys()
    assert {name: value for name, value in named.items() if compose[name]} == {k: v for k, v in compose.items() if v}
    assert ports == {name: value for name, value in compose.items() if name.endswith("_PORT")}


def test_drawn_transitions_match_the_fence():
    drawn = [each for each in blocks("mermaid", PROTOCOL) if "stateDiagram" in each.text]
    arrows = re.findall(r"^ +(\S+) --> (\w+)", drawn[0].text, re.MULTILINE)

    legal = {(before or "[*]", after) for before, followers in TRANSITIONS.items() for after in followers}

    assert set(arrows) == legal
    assert len(arrows) == len(legal)


def test_arrivals_table_matches_the_fence():
    words = {
        Decision.RUN: ("run it", "fill a slot; with the last one run it", "call again, same key"),
        Decision.VOID: ("void again, same key",),
        Decision.UNDO: ("undo it", "undo again, same key"),
        Decision.FENCE: ("write `fenced`, emit the compensation's event", "write `fenced`, emit the refusal"),
        Decision.DEFER: ("defer",),
        Decision.IGNORE: ("nothing",),
    }
    table = [cells for cells in rows(section(PROTOCOL, "The fence")) if len(cells) == 4]
    states = {name: cells[1:] for cells in table for name in re.findall(r"\w+", cells[0])}

    assert states.keys() == {"nowhere", *StepState}
    for name, cells in states.items():
        state = None if name == "nowhere" else StepState(name)
        for arrival, cell in zip((Arrival.FORWARD, Arrival.COMPENSATION, Arrival.ABORT), cells, strict=True):
            assert cell in words[decide(arrival, state)], (name, arrival)


def test_wire_reference_names_all_headers_and_reasons():
    names = ("envelope.py", "decoding.py", "senders.py")
    envelope, *readers = ((PROJECT / "toolkit" / "messaging" / name).read_text() for name in names)
    page = (DOCS / "reference" / "wire.md").read_text()

    headers = re.findall(r'^[A-Z_]+ = "([a-z-]+)"$', envelope, re.MULTILINE)
    reasons = set(re.findall(r'UnreadableError\(\s*"([\w ]+)"', "".join(readers)))

    assert reasons
    assert set(re.findall(r"^\| header \| `([a-z-]+)`", page, re.MULTILINE)) == set(headers)
    assert all(f"`{reason}`" in page for reason in reasons)


def test_command_reference_names_each_nodes_status():
    rows_of_statuses = re.search(r"\| status \|.*?\n\n", (DOCS / "reference" / "cli.md").read_text(), re.DOTALL)[0]

    assert re.findall(r"^\| `(\w+)` ", rows_of_statuses, re.MULTILINE) == [str(each) for each in Status]
