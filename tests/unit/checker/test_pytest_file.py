"""The file of failing tests has a name of its own for each service and each test, whatever the declarations' names."""

from __future__ import annotations

import ast
from dataclasses import replace

from tests.example_sagas.drawn import services_of
from tests.unit.checker.test_seeded_faults import FAULTS
from toolkit.checker.check import SagaReport, check
from toolkit.checker.pytest_file import file_of


def test_a_service_gets_a_python_name_of_its_own() -> None:
    (report,) = check(services_of(FAULTS["a refusal leads nowhere"][0]))
    services = ("pay", "3pl", "class", "e-mail", "e_mail", "Scenario", "asyncio")

    tree = ast.parse(file_of([report], {name: (f"shop.m{place}", "app") for place, name in enumerate(services)}))

    names = [alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert set(filter(None, names)) == {"pay", "_3pl", "_class", "e_mail", "e_mail_", "Scenario_", "asyncio_"}


def test_each_story_is_a_test_of_its_own() -> None:
    (one,) = check(services_of(FAULTS["a refusal leads nowhere"][0]))
    reports = [renamed(one, saga) for saga in ("gift.card", "gift-card", "Gift-Card")]

    tree = ast.parse(file_of(reports, {"pay": ("shop.pay", "app")}))

    tests = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert tests == ["test_gift_card_no_end", "test_gift_card_no_end_", "test_gift_card_no_end__"]


def renamed(report: SagaReport, saga: str) -> SagaReport:
    exploration = report.exploration
    return replace(report, exploration=replace(exploration, graph=replace(exploration.graph, name=saga)))
