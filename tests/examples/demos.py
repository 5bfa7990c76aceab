"""The examples' demonstrations, by name."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import examples
from toolkit.cli.demonstration import Demo

DEMOS: dict[str, Demo] = {
    each.name: import_module(f"examples.{each.name}.demo").DEMO for each in pkgutil.iter_modules(examples.__path__)
}
