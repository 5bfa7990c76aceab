"""Counterexamples as a file of failing tests: each plays its story on the embedded transport."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from toolkit.checker.check import SagaReport
from toolkit.checker.diagnosis import finding_of
from toolkit.checker.explorer import Counterexample, Exploration, StoryMove
from toolkit.checker.moves import Action
from toolkit.checker.stories import story_of

#: The first line of the file, by which a file that may be written again is known.
MARK = '"""Counterexamples that `saga check --pytest` wrote: each test plays one on the embedded transport."""'

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

    Without counterexamples there is no test to write, and the text is empty.
    """
    tests = [_test(report.exploration, each) for report in reports for each in report.exploration.counterexamples]
    names = {service: re.sub(r"\W", "_", service) for service in places}
    imports = [f"from {module} import {name} as {names[service]}" for service, (module, name) in places.items()]
    head = _HEAD.format(imports="\n".join(sorted(imports)), names=", ".join(names.values()))
    return head + "".join(tests) if tests else ""


def _test(exploration: Exploration, found: Counterexample) -> str:
    finding = finding_of(exploration, found)
    return _TEST.format(
        name=re.sub(r"\W+", "_", f"{finding.saga} {finding.rule}").lower(),
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
