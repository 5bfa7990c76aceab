"""The pages hang together: links, lists of pages and words, named tests, quoted log lines, the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, PROJECT, anchors, first_column, rows, section

FAILURE_MODEL = DOCS / "explanation" / "failure-model.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_has_a_target(page: Path):
    targets = [
        (page.parent / path if path else page, anchor)
        for path, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text())
        if "://" not in path
    ]

    assert [str(path) for path, _ in targets if not path.exists()] == []
    assert [f"{path}#{anchor}" for path, anchor in targets if anchor and anchor not in anchors(path)] == []


def test_glossary_has_each_word_once_in_order():
    words = first_column((DOCS / "glossary.md").read_text())

    assert words == sorted(set(words))


def test_index_of_decisions_lists_all():
    index = re.findall(r"\((\d{4}-[\w-]+\.md)\)", (DOCS / "adr" / "README.md").read_text())

    assert index == sorted(path.name for path in (DOCS / "adr").glob("0*.md"))


def test_index_of_pages_lists_all():
    index = set(re.findall(r"\(([\w/-]+\.md)\)", (DOCS / "README.md").read_text()))

    listed = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if path.parent.name not in ("adr", "runbooks")}
    assert index == (listed - {"README.md"}) | {"adr/README.md"}


@pytest.mark.parametrize("name", ["guarantees", "failure-model"])
def test_tests_named_as_evidence_exist(name: str):
    page = DOCS / "explanation" / f"{name}.md"
    links = re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", page.read_text())
    files = re.findall(r"`(tests/[\w/.]+)`", page.read_text())

    missing = [test for test, file in links if f"def {test}(" not in (page.parent / file).read_text()]

    assert missing == []
    assert [file for file in files if not (PROJECT / file).exists()] == []
    assert len(links) == len(re.findall(r"`test_\w+`", page.read_text())), "a test is named without a link to its file"


def test_quoted_log_lines_are_in_the_code():
    page = " ".join(FAILURE_MODEL.read_text().split())
    code = "".join(path.read_text() for path in (PROJECT / "toolkit").rglob("*.py"))

    quoted = re.findall(r"log lines? `([^`]+)`(?: and `([^`]+)`)?", page)

    assert len(quoted) > 5
    assert [line for lines in quoted for line in lines if f'"{line}"' not in code] == []


def test_tree_names_every_package_and_top_module():
    tree = section(PROJECT / "CONTRIBUTING.md", "The tree")
    modules = [path.stem for path in (PROJECT / "toolkit").glob("*.py") if path.stem != "__init__"]

    packages = [f"{path.parent.name}/" for path in (PROJECT / "toolkit").glob("*/__init__.py")]

    beside = re.findall(r"`(\w+)`", re.search(r"Beside them stand ([^.]+)\.", tree)[1])
    assert sorted([*(cells[0].strip("`") for cells in rows(tree)), *beside]) == sorted([*modules, *packages])
