"""The command line `saga`: run services, start sagas, and read what became of them.

Standard output is data and nothing else. Exit codes: 0 fine, 1 a saga failed or a problem was found,
2 wrong use, 3 something is unreachable or was not done in time, 130 Ctrl-C, 141 nobody reads the output any more.
"""

from __future__ import annotations

import os
import signal
import sys
from io import TextIOWrapper
from typing import Any

#: What a shell makes of a command that Ctrl-C has ended.
_INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Run the command that the arguments name; Ctrl-C ends it without a traceback, from here on."""
    _on_ctrl_c(_vanish)
    from toolkit.cli.verbs import app  # takes a second, and what an import makes of Ctrl-C is anybody's guess

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that can't show a sign shows its number
            stream.reconfigure(errors="backslashreplace")
    try:
        _on_ctrl_c(signal.default_int_handler)
        app()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    finally:
        _on_ctrl_c(_vanish)


def _on_ctrl_c(do: Any) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a shell's background, where it is not meant
        signal.signal(signal.SIGINT, do)


def _vanish(*_: object) -> None:
    os._exit(_INTERRUPTED)
