"""`saga demo` shows every way a saga can go, and is itself a test: it fails if anything ends otherwise."""

from __future__ import annotations

import json


def test_demo_orders_end_well_and_stay_readable(saga_process, data_dir):
    demo = saga_process("demo")
    trace = saga_process("trace", "demo-bounced", "-o", "json")

    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stderr == ""
    assert demo.stdout.count("✓ right") == 11
    assert "WRONG" not in demo.stdout
    assert "262.50 kept, 262.50 due" in demo.stdout
    assert f"export SAGA_DATA_DIR={data_dir}/demo" in demo.stdout
    assert json.loads(trace.stdout)["state"] == "Failed"


def test_demo_runs_again_and_leaves_other_files(saga_process, data_dir):
    notes = data_dir / "demo" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")

    codes = [saga_process("demo").returncode for _ in range(2)]

    assert codes == [0, 0]
    assert notes.read_text() == "mine"


def test_unknown_example_is_answered_with_the_names(saga):
    result = saga("demo", "tranfser")

    assert result.exit_code == 2
    assert "there is no example 'tranfser'; there are: approval, orchestrated, transfer, travel" in result.stderr
