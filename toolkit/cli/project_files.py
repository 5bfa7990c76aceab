"""The files of a new project: the templates in `project/`, with the project's name and the toolkit's version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from toolkit.cli.exit_codes import UsageError

_TEMPLATES = Path(__file__).with_name("project")
#: A template's name has it at its end, so that no tool takes a template for a file of the toolkit.
_SUFFIX = ".template"
_DISTRIBUTION = "saga-toolkit"
#: A name that pip, Docker and compose accept for a distribution, an image and a project.
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST_NAME = 60


def project_files(name: str) -> dict[Path, str]:
    """Return the texts of a project's files, by their paths in its directory.

    Raises:
        UsageError: the name is none for a project.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME or name == _DISTRIBUTION:
        raise UsageError(
            f"{name!r} can't be the name of a project: give up to {_LONGEST_NAME} lower-case letters, digits and "
            f"hyphens, such as ticket-shop, and another name than {_DISTRIBUTION}"
        )
    values = {"{{name}}": name, "{{version}}": version(_DISTRIBUTION)}
    paths = sorted(path for path in _TEMPLATES.rglob(f"*{_SUFFIX}") if path.is_file())
    return {path.relative_to(_TEMPLATES).with_suffix(""): _filled(path.read_text(), values) for path in paths}


def write_project(directory: Path, files: Mapping[Path, str]) -> None:
    """Write a project's files into a new directory.

    Raises:
        UsageError: the directory exists, or can't be made.
    """
    try:
        directory.mkdir()
    except FileExistsError:
        raise UsageError(f"{directory} exists already: give another name, or remove it first") from None
    except OSError as error:
        raise UsageError(
            f"{directory} can't be made: {error.strerror}; go to a directory that you may write"
        ) from error
    for path, text in files.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def _filled(text: str, values: Mapping[str, str]) -> str:
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text
