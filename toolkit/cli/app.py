"""The verbs of the command line `saga`, in the order in which its help names them."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli.commands.abort import abort
from toolkit.cli.commands.answer import answer
from toolkit.cli.commands.asyncapi import asyncapi
from toolkit.cli.commands.attention import attention
from toolkit.cli.commands.audit import audit
from toolkit.cli.commands.check import check
from toolkit.cli.commands.config import config
from toolkit.cli.commands.console import console
from toolkit.cli.commands.contract import contract
from toolkit.cli.commands.db import db
from toolkit.cli.commands.dead_letters import dead_letters
from toolkit.cli.commands.demo import demo
from toolkit.cli.commands.doctor import doctor
from toolkit.cli.commands.graph import graph
from toolkit.cli.commands.log import log
from toolkit.cli.commands.ls import ls
from toolkit.cli.commands.new import new
from toolkit.cli.commands.nudge import nudge
from toolkit.cli.commands.prune import prune
from toolkit.cli.commands.questions import questions
from toolkit.cli.commands.replay import replay
from toolkit.cli.commands.run import run
from toolkit.cli.commands.stats import stats
from toolkit.cli.commands.tail import tail
from toolkit.cli.commands.topology import topology
from toolkit.cli.commands.trace import trace
from toolkit.cli.commands.trigger import trigger
from toolkit.cli.commands.verify import verify
from toolkit.cli.commands.watch import watch
from toolkit.cli.exit_codes import VerbGroup

app = typer.Typer(
    name="saga",
    cls=VerbGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_VERBS = (
    *(demo, new, run, console, trigger, ls, trace, log, tail, watch, stats, verify, check, contract, graph),
    *(asyncapi, topology, config, doctor, attention, audit, questions, answer, nudge, abort, replay, prune),
)
for verb in _VERBS:
    app.command()(verb)
app.add_typer(dead_letters, name="dead-letters")
app.add_typer(db, name="db")


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
