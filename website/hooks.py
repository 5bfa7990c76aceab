"""MkDocs hooks: the site has the pages as they stand in the repository, and every file that one of them links to.

- The navigation is that of docs/README.md, with the runbooks, the decisions and the project's other pages.
- A link out of docs/ leads to a page of its target: another Markdown page, a file's text, or a directory's contents.
- A comment `<!-- ::: name -->` becomes the documentation of that name, from its docstrings.
"""

from __future__ import annotations

import ast
import gzip
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parents[1]
DOCS = PROJECT / "docs"
HERE = Path(__file__).parent

_LINK = re.compile(r"\]\(([^)#\s]+)((?:#[^)\s]*)?)\)")
_API = re.compile(r"^<!-- (::: [\w.]+) -->$", re.MULTILINE)
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_DIAGRAMS = ("assets/mermaid.tiny.js", "assets/diagrams.js")
#: The highlighter's names of the files' languages, where they are not the suffix.
_LANGUAGES = {"py": "python", "yml": "yaml", "env": "sh"}
_CELL = re.compile(r"^\| ([^|]+) \|", re.MULTILINE)
_LISTED = re.compile(r"\[([^]]+)\]\(([^)]+\.md)\)")
_SECTION = re.compile(r"^\*\*(.+)\*\*\n\n((?:\|.*\n)+)", re.MULTILINE)

#: The site's address of each file outside docs/ that a page links to.
_pages: dict[Path, str] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Find the linked files, and build the navigation."""
    _pages.clear()
    for page in [*DOCS.rglob("*.md"), *PROJECT.glob("*.md")]:
        _follow(page)
    config.nav = list(_navigation())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of linked files, and the assets."""
    for target, address in _pages.items():
        files.append(File.generated(config, address, content=_text_of(target)))
    for name, content in _assets():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links out of docs/ to the pages of their targets, and put documentation in the place of comments."""
    address = page.file.src_uri
    source = next((each for each, known in _pages.items() if known == address), DOCS / address)

    def pointed(match: re.Match[str]) -> str:
        known = _known(_target(source, match[1]))
        return f"]({posixpath.relpath(known, posixpath.dirname(address))}{match[2]})" if known else match[0]

    return _API.sub(r"\1", markdown if source.is_dir() else _LINK.sub(pointed, markdown))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Load the diagrams' scripts on pages that have one."""
    if '<pre class="mermaid">' not in output:
        return output
    here = posixpath.dirname(page.url) or "."
    scripts = "".join(f'<script src="{posixpath.relpath(each, here)}"></script>' for each in _DIAGRAMS)
    return output.replace("</head>", f"{scripts}</head>", 1)


# -- the pages of linked files ---------------------------------------------------------------------------------------


def _follow(page: Path) -> None:
    """Note the files that a page links to, and those that they link to."""
    if not page.is_relative_to(DOCS):
        _pages[page] = _address_of(page)
    for path, _ in _LINK.findall(page.read_text()):
        target = _target(page, path)
        if target in _pages or not target.exists() or (target.is_relative_to(DOCS) and target.is_file()):
            continue
        if target.suffix == ".md":
            _follow(target)
        else:
            _pages[target] = _address_of(target)


def _target(page: Path, path: str) -> Path:
    """Return the file of a link; of a directory with a README, that page."""
    target = Path(posixpath.normpath(page.parent / path))
    readme = target / "README.md"
    return readme if readme.is_file() and target.is_dir() else target


def _known(target: Path) -> str | None:
    """Return the site's address of a file; None where the site does not have it."""
    is_own = target.is_relative_to(DOCS) and target.is_file()
    return target.relative_to(DOCS).as_posix() if is_own else _pages.get(target)


def _address_of(target: Path) -> str:
    path = target.relative_to(PROJECT).as_posix()
    if target.name == "README.md":
        return f"{path.removesuffix('/README.md')}.md" if "/" in path else "project/overview.md"
    return f"project/{path.lower()}" if target.suffix == ".md" else f"source/{path.lstrip('.')}.md"


def _text_of(target: Path) -> str:
    """Return a linked file as a page."""
    if target.suffix == ".md":
        return target.read_text()
    path = target.relative_to(PROJECT).as_posix()
    head = f"---\nsearch: {{exclude: true}}\nhide: [navigation, toc]\n---\n\n# {path}\n\n"
    if target.is_dir():
        return head + "| | |\n|---|---|\n" + "".join(f"| {name} | {text} |\n" for name, text in _contents(target))
    fence = "`" * 5
    return f'{head}{fence}{_LANGUAGES.get(target.suffix, "text")} linenums="1"\n{target.read_text()}\n{fence}\n'


def _contents(directory: Path) -> Iterator[tuple[str, str]]:
    """Yield the names in a directory, those with a page as links, with the first line of what they say."""
    here = posixpath.dirname(_pages[directory])
    for each in sorted(directory.iterdir()):
        if each.name.startswith((".", "__pycache__")):
            continue
        address = _known(_target(directory, each.name))
        yield f"[`{each.name}`]({posixpath.relpath(address, here)})" if address else f"`{each.name}`", _first_line(each)


def _first_line(path: Path) -> str:
    """Return a module's or a package's docstring's first line, or a page's title."""
    module = path / "__init__.py" if path.is_dir() else path
    if module.suffix == ".py" and module.is_file():
        return (ast.get_docstring(ast.parse(module.read_text())) or "").partition("\n")[0]
    title = _TITLE.search(path.read_text()) if path.suffix == ".md" else None
    return title[1] if title else ""


# -- the navigation --------------------------------------------------------------------------------------------------


def _navigation() -> Iterator[dict[str, Any]]:
    """Yield the sections of docs/README.md, then the project's other pages."""
    index = (DOCS / "README.md").read_text()
    yield {"Documentation": "README.md"}
    for heading, table in _SECTION.findall(index):
        yield {heading: [entry for cell in _CELL.findall(table) for entry in _entries(_LISTED.findall(cell))]}
    known = {path: address for path, address in _pages.items() if path.suffix == ".md"}
    readmes = {path: address for path, address in known.items() if path.parent != PROJECT}
    yield {"Examples": [{_first_line(path): address} for path, address in sorted(readmes.items())]}
    names = ("README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md")
    yield {"Project": [{_first_line(PROJECT / name): known[PROJECT / name]} for name in names]}


def _entries(listed: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Yield the entries of a row's pages: the first under the row's name, a further one under its own title.

    Decisions and runbooks follow the pages that lead to them; docs/README.md does not list each.
    """
    for place, (name, path) in enumerate(listed):
        title = _first_line(DOCS / path) if place else name
        yield {title: [path, *_titled(DOCS / "adr", "0*.md")] if path == "adr/README.md" else path}
        if path == "how-to/observe.md":
            yield {"Runbooks": list(_titled(DOCS / "how-to" / "runbooks", "*.md"))}


def _titled(directory: Path, pattern: str) -> Iterator[dict[str, str]]:
    for page in sorted(directory.glob(pattern)):
        yield {_first_line(page): page.relative_to(DOCS).as_posix()}


def _assets() -> Iterator[tuple[str, str | bytes]]:
    yield "assets/style.css", (HERE / "style.css").read_text()
    yield "assets/icon.svg", (PROJECT / "toolkit/console/static/icon.svg").read_text()
    yield _DIAGRAMS[0], gzip.decompress((HERE / "mermaid.tiny.js.gz").read_bytes())
    yield _DIAGRAMS[1], (HERE / "diagrams.js").read_text()
