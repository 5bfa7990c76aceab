"""The command line `saga`: run services, start sagas, and read what became of them.

Standard output is data and nothing else. Exit codes: 0 fine, 1 a saga failed or a problem was found,
2 wrong use, 3 something is unreachable or was not done in time, 130 Ctrl-C, 141 the output's reader is gone.
"""


def main() -> None:
    """Run the command that the arguments name; Ctrl-C ends it without a traceback, from here on.

    Nothing is imported before: on what comes earlier, the interpreter's own start, Ctrl-C has Python's traceback.
    """
    try:
        _run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _run() -> None:
    from toolkit.cli.interrupts import interrupt, on_ctrl_c, vanish

    on_ctrl_c(vanish)
    import sys

    from toolkit.errors import MissingExtraError
    from toolkit.extras import require

    try:
        require("cli", "the command saga")
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 -- typer, which prints else, may be what is missing
        raise SystemExit(2) from None
    from toolkit.cli.app import app
    from toolkit.cli.exit_codes import ClosedOutput

    sys.stdout = sys.stdout or ClosedOutput()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that can't show a sign shows its number
            stream.reconfigure(errors="backslashreplace")
    try:
        on_ctrl_c(interrupt)
        app()
    finally:
        on_ctrl_c(vanish)
