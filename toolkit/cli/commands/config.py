"""`saga config`: the value of each setting here, and its source."""

from __future__ import annotations

from toolkit.cli.options import Format, FormatOption
from toolkit.cli.output import print_rows


def config(output: FormatOption = Format.TABLE) -> None:
    """Show each setting as a service started here has it.

    Passwords and tokens are redacted.
    """
    from toolkit.configuration.environment import shown_settings
    from toolkit.configuration.settings import load_settings

    print_rows(shown_settings(load_settings()), output, columns=("variable", "value", "source"))
