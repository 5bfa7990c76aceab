"""The examples' demonstrations, by name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import examples
from toolkit.cli.demonstration import Demo

DEMOS: dict[str, Demo] = {
    each.parent.name: import_module(f"examples.{each.parent.name}.demo").DEMO
    for each in sorted(Path(examples.__path__[0]).glob("*/demo.py"))
}
