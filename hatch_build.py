"""Put the order saga and the examples into the wheel, where `saga demo` finds them; a checkout has them at its top."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: The packages with demonstrations; an image of the services is built without them.
_PACKAGES = ("services", "examples")


class Demonstrations(BuildHookInterface[Any]):
    """Adds the packages as `toolkit/demos/…`: the wheel installs no package of its users' own names."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add those that are there, unless the installation is editable and has them already."""
        if version == "editable":
            return
        found = (name for name in _PACKAGES if (Path(self.root) / name).is_dir())
        build_data["force_include"].update({name: f"toolkit/demos/{name}" for name in found})
