"""The pages that people read, and what stands in them: blocks, tables, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
EXAMPLES = {page.parent.name: page for page in sorted(PROJECT.glob("examples/*/README.md"))}
#: The examples that `saga demo` plays; the others are applications of their own.
DEMONSTRATED = {name: page for name, page in EXAMPLES.items() if page.with_name("demo.py").exists()}
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md"), *EXAMPLES.values()])
README = PROJECT / "README.md"
DOCS = PROJECT / "docs"
#: Its blocks build upon each other: tests/docs/test_tutorial.py.
TUTORIAL = DOCS / "tutorial.md"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page, and the line at which it begins."""

    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(PROJECT)}:{self.line}"


def blocks(language: str, *pages: Path) -> list[Block]:
    """Return the fenced blocks in this language, of these pages or of all."""
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[2])
        for page in pages or PAGES
        for text in [page.read_text()]
        for found in _BLOCK.finditer(text)
        if found[1] == language
    ]


def section(page: Path, heading: str) -> str:
    """Return the text beneath a heading of the second rank, up to the next one."""
    return page.read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the tables in a text, their headings left out."""
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        is_heading, is_rule = following.startswith("|--"), line.startswith("|--")
        if line.startswith("|") and not is_heading and not is_rule:
            yield [cell.strip() for cell in line.strip("|").split("|")]


def first_column(text: str) -> list[str]:
    """Return the first cell of each row, without its marks."""
    return [cells[0].strip("`*") for cells in rows(text)]


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub derives them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
