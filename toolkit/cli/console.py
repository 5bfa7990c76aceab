"""`saga console`: the pages that show every saga, and what needs a person."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli.exits import complain
from toolkit.cli.locating import locate
from toolkit.cli.operating import user
from toolkit.cli.options import ServicesOption


def console(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0: any free one.")] = 8080,
    service: ServicesOption = None,
) -> None:
    """Show sagas, and what needs a person, in a browser.

    Ctrl-C ends it. On another address than this machine's own one signs in, with the services' SAGA_API_TOKEN.
    """
    from toolkit.console.serving import serve
    from toolkit.settings import load_settings

    token = load_settings().api_token
    serve(locate(service), token=token, host=host, port=port, actor=user(), announce=complain)
