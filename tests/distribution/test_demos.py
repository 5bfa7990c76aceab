"""The wheel's demonstrations run in an empty directory, and what they leave can be explored."""

from __future__ import annotations

from tests.distribution.environments import Unpacked


def test_orders_run_and_stay_readable(unpacked: Unpacked):
    shown = unpacked.saga("demo")
    exported = {"SAGA_PACKAGE": "services", "SAGA_DATA_DIR": ".saga/demo", "SAGA_BROKER_URL": "embedded"}
    triggered = unpacked.saga("trigger", "OrderCreated", "--wait", "30", **exported)
    verified = unpacked.saga("verify", **exported)

    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"export {' '.join(f'{name}={value}' for name, value in exported.items())}\n" in shown.stdout
    assert triggered.returncode == 0, triggered.stderr
    assert verified.stderr == "9 sagas verified, all is right\n"


def test_example_is_found_beside_own_services(unpacked: Unpacked):
    (unpacked.cwd / "services").mkdir()
    (unpacked.cwd / "services" / "__init__.py").write_text("")

    shown = unpacked.saga("demo", "orchestrated")
    own = unpacked.saga("demo")

    assert (shown.returncode, shown.stderr) == (0, "")
    assert "SAGA_PACKAGE=examples.orchestrated" in shown.stdout
    assert own.returncode == 2
    assert "there is no module 'services.demo'" in own.stderr


def test_demonstrations_serve_no_other_command_unasked(unpacked: Unpacked):
    graph = unpacked.saga("graph")
    named = unpacked.saga("graph", SAGA_PACKAGE="examples.travel")

    assert graph.returncode == 2
    assert "there is no module 'services'" in graph.stderr
    assert named.returncode == 0, named.stderr
