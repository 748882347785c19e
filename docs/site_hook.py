"""What MkDocs asks of us: pages that lie outside `docs`, and links that work in the repository and on the site alike.

Links are written for the repository, where people read the files too. On the site, a link to a page goes to that page,
whichever folder its file lies in, and a link to any other file of the repository goes to its source. A link to nothing
is a warning, which `mkdocs build --strict` makes an error.
"""

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SOURCE = "https://github.com/tide-relay/tide-relay/blob/main"
OUTSIDE = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "benchmarks/results.md": "benchmarks.md",
    "deploy/README.md": "image.md",
    "deploy/helm/README.md": "chart.md",
}
"""Path in the repository -> page of the site."""
FOLDERS = {"backends": "Backends"}
"""Folders of `docs` that are linked to, and what their pages are; GitHub shows a list of the files there."""

_INSIDE = {page: path for path, page in OUTSIDE.items()}
_FENCE = re.compile(r"^ *(```|~~~)")
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^()\s#]+)(?=[#)])")
_log = logging.getLogger("mkdocs.hooks.site")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie outside, and one for each folder."""
    for path, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    for folder, title in FOLDERS.items():
        pages = sorted((ROOT / "docs" / folder).glob("*.md"))
        items = [f"- [{page.read_text('utf-8').splitlines()[0].lstrip('# ')}]({page.name})" for page in pages]
        files.append(File.generated(config, f"{folder}/index.md", content="\n".join([f"# {title}", "", *items, ""])))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turns links to files of the repository into links of the site."""
    uri = page.file.src_uri
    lines, in_code = markdown.split("\n"), False
    for number, line in enumerate(lines):
        if _FENCE.match(line):
            in_code = not in_code
        elif not in_code:
            lines[number] = _LINK.sub(lambda link: site_link(link[1], uri), line)
    return "\n".join(lines)


def site_link(target: str, uri: str) -> str:
    """A link in the file of the page `uri`, for the page itself."""
    here = _INSIDE.get(uri, f"docs/{uri}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
    if not (ROOT / path).exists():
        _log.warning("Doc file '%s' contains a link '%s', but there is no '%s' in the repository.", uri, target, path)
        return target
    page = OUTSIDE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    if page is None:
        return f"{SOURCE}/{path}"
    if page in FOLDERS:
        page = f"{page}/index.md"
    return posixpath.relpath(page, posixpath.dirname(uri) or ".")
