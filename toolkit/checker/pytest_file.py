"""Counterexamples as a file of failing tests: each plays its story on the embedded transport."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from keyword import iskeyword

from toolkit.checker.check import SagaReport
from toolkit.checker.diagnosis import finding_of
from toolkit.checker.explorer import Counterexample, Exploration, StoryMove
from toolkit.checker.findings import Finding
from toolkit.checker.moves import Action
from toolkit.checker.stories import story_of

#: The first line of the file, by which a file that may be written again is known.
MARK = '"""Counterexamples that `saga check --pytest` wrote: each test plays one on the embedded transport."""'

#: Names that the file's head imports or sets.
_IMPORTED = ("annotations", "asyncio", "Path", "Scenario", "SERVICES")

_HEAD = f"""{MARK}

from __future__ import annotations

import asyncio
from pathlib import Path

{{imports}}
from toolkit.testing import Scenario

SERVICES = [{{names}}]
"""

_TEST = '''

def test_{name}(tmp_path: Path) -> None:
    """{message}.

    {cure}.
    """

    async def play() -> None:
        async with Scenario(SERVICES, directory=tmp_path, saga={saga!r}) as scenario:
{lines}
            assert await scenario.violations() == []

    asyncio.run(play())
'''


def file_of(reports: Iterable[SagaReport], places: Mapping[str, tuple[str, str]]) -> str:
    """Return the file's text; `places` have each service's module and attribute, by its name.

    Without counterexamples there is no test to write, and the text is empty. A `Scenario` plays no coordinator, so the
    stories of a plan are left out.
    """
    names = _distinct(places, taken=_IMPORTED)
    placed = zip(places.values(), names, strict=True)
    imports = [f"from {module} import {attribute} as {name}" for (module, attribute), name in placed]
    head = _HEAD.format(imports="\n".join(sorted(imports)), names=", ".join(names))
    explorations = [each.exploration for each in reports if isinstance(each.exploration, Exploration)]
    found = [(exploration, each) for exploration in explorations for each in exploration.counterexamples]
    findings = [finding_of(exploration, each) for exploration, each in found]
    tests = _distinct((f"{each.saga} {each.rule}".lower() for each in findings), taken=())
    return "".join([head, *map(_test, tests, findings, (each for _, each in found))]) if found else ""


def _distinct(texts: Iterable[str], *, taken: Collection[str]) -> list[str]:
    """Return a Python name for each text that is no other text's name, and not taken."""
    names: list[str] = []
    for text in texts:
        name = re.sub(r"\W+", "_", text)
        if not name.isidentifier() or iskeyword(name):
            name = f"_{name}"
        while name in names or name in taken:
            name += "_"
        names.append(name)
    return names


def _test(name: str, finding: Finding, found: Counterexample) -> str:
    return _TEST.format(
        name=name,
        message=f"{finding.rule.capitalize()}: {finding.message}",
        cure=f"In {finding.function} ({finding.service}): {finding.cure}",
        saga=finding.saga,
        lines="\n".join(f"            {line}" for line in lines_of(found)),
    )


def lines_of(found: Counterexample) -> list[str]:
    """Return the statements that play a counterexample in a `Scenario`, each with its sentence as a comment."""
    refusals = [line for each in found.story for line in _refusal(each)]
    sentences = zip(found.story, story_of(found), strict=True)
    return [*refusals, *(f"{line}  # {text}" for each, text in sentences for line in _statements(each))]


def _refusal(each: StoryMove) -> Iterator[str]:
    if each.move.action is Action.REFUSES and each.move.step:
        yield f'scenario.refuse("{each.move.step.service}", "{each.move.step.name}", "{each.move.emits}")'


def _statements(each: StoryMove) -> Iterator[str]:
    step = each.move.step
    if each.move.action is Action.ABORT:
        yield "scenario.abort()"
    elif step is None:
        yield f'scenario.answer("{each.move.emits}")'
    else:
        events = ("AbortRequested",) if each.move.action is Action.ABORTED else each.on
        yield from (f'await scenario.deliver("{event}", to="{step.service}")' for event in events)
        if each.move.action is Action.EXPIRES:
            yield f'await scenario.expire("{step.service}", "{step.name}")'
