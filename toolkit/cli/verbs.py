"""The verbs of the command line `saga`, in the order in which its help names them."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli.abort import abort
from toolkit.cli.asyncapi import asyncapi
from toolkit.cli.attention import attention
from toolkit.cli.audit import audit
from toolkit.cli.config import config
from toolkit.cli.console import console
from toolkit.cli.dead_letters import dead_letters
from toolkit.cli.demo import demo
from toolkit.cli.doctor import doctor
from toolkit.cli.exits import VerbGroup
from toolkit.cli.graph import graph
from toolkit.cli.log import log
from toolkit.cli.ls import ls
from toolkit.cli.nudge import nudge
from toolkit.cli.outbox import outbox
from toolkit.cli.overdue import overdue
from toolkit.cli.prune import prune
from toolkit.cli.replay import replay
from toolkit.cli.run import run
from toolkit.cli.stats import stats
from toolkit.cli.tail import tail
from toolkit.cli.topology import topology
from toolkit.cli.trace import trace
from toolkit.cli.trigger import trigger
from toolkit.cli.verify import verify
from toolkit.cli.watch import watch

app = typer.Typer(
    name="saga",
    cls=VerbGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_VERBS = (
    *(demo, run, console, trigger, ls, trace, log, tail, watch, stats, verify, graph, asyncapi, topology),
    *(config, doctor, attention, audit, overdue, outbox, nudge, abort, replay, prune),
)
for verb in _VERBS:
    app.command()(verb)
app.add_typer(dead_letters, name="dead-letters")


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"saga {version('saga-toolkit')}")
        raise typer.Exit


_VersionOption = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
]


@app.callback()
def saga(_: _VersionOption = False) -> None:
    """Run choreographed sagas, start them, and read what became of them."""
