"""`saga console`: the pages that show every saga, and what needs a person."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli.exit_codes import complain
from toolkit.cli.operator import user
from toolkit.cli.options import ServicesOption
from toolkit.cli.service_locations import locate


def console(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0: any free one.")] = 8080,
    behind_https: Annotated[
        bool | None,
        typer.Option(
            "--behind-https/--no-behind-https",
            help="Browsers reach it by an HTTPS proxy; else SAGA_BEHIND_HTTPS.",
            show_default=False,
        ),
    ] = None,
    service: ServicesOption = None,
) -> None:
    """Show sagas, and what needs a person, in a browser.

    Ctrl-C ends it. On another address than this machine's own one signs in, with the services' SAGA_API_TOKEN.
    """
    from toolkit.configuration.settings import load_settings
    from toolkit.console.server import serve

    settings = load_settings()
    serve(
        locate(service),
        token=settings.api_token,
        host=host,
        port=port,
        actor=user(),
        announce=complain,
        behind_https=settings.behind_https if behind_https is None else behind_https,
        names=settings.http_names,
    )
