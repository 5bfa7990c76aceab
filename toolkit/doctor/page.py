"""`python -m toolkit.doctor.page` writes the checks' part of docs/how-to/doctor.md from their declarations."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from toolkit.doctor.checks.registry import SECTIONS
from toolkit.doctor.findings import Check

PAGE = Path("docs/how-to/doctor.md")
#: The line of the page above the generated part.
MARK = "<!-- `make doctor-page` writes all below from the checks' declarations. -->\n"
_FIELD = re.compile(r"\{(\w+)\}")
_WIDTH = 120


def with_checks(page: str) -> str:
    """Return the page with the generated part as the checks declare it now."""
    head, mark, _ = page.partition(MARK)
    return head + mark + "".join(f"\n{each}\n" for each in _blocks())


def _blocks() -> Iterator[str]:
    for title, checks in SECTIONS.items():
        yield f"## {title}"
        for check in checks:
            yield f"### {check.name}"
            yield "\n".join(_items(check))


def _items(check: Check) -> Iterator[str]:
    if check.is_probe:
        yield "- Only with `--probe`."
    cure = _FIELD.sub(lambda field: field[1].upper(), check.cure)
    for label, text in (("Looks at", check.looks_at), ("Why", check.why), ("Cure", cure)):
        item = f"- {label}: {text[:1].upper()}{text[1:]}"
        yield textwrap.fill(
            item if item.endswith(".") else f"{item}.",
            _WIDTH,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )


if __name__ == "__main__":
    PAGE.write_text(with_checks(PAGE.read_text()))
