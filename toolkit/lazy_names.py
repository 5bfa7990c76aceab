"""Public names of a package that are imported on first use."""

from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False  # `typing` takes longer to import than all of this

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def on_first_use(
    package: str, homes: Mapping[str, str], extras: Mapping[str, str] | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the `__getattr__` and `__dir__` of a package.

    `homes` has the module of each public name, `extras` the extra of each name that needs one.
    """
    own = vars(sys.modules[package])

    def imported(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if extra := (extras or {}).get(name):
            from toolkit.extras import require

            require(extra, name)
        found: object = getattr(import_module(f"{package}.{homes[name]}"), name)
        own[name] = found
        return found

    return imported, lambda: sorted({*own, *homes})
