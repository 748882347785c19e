"""The site as `make docs` builds it: complete, without broken links, and without requests to other hosts."""

import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
SITE = "https://tide-relay.github.io/tide-relay/"
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""What a browser asks for by itself, by tag."""
NOT_FETCHED = {"canonical", "prev", "next", "alternate", "edit"}
"""Relations of a <link> that a browser does not ask for."""
ELSEWHERE = re.compile(r"url\(\s*['\"]?(?:https?:)?//|@import\s+['\"]?(?:https?:)?//")

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("site")]


class Page(HTMLParser):
    """What a page of the site links to, fetches, and can be linked at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors = {""}
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in FETCHED and FETCHED[tag] in given and given.get("rel") not in NOT_FETCHED:
            self.fetched.append(given[FETCHED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = ["make", "docs", f"ARGS=--site-dir {folder}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    """By their addresses."""
    found = {}
    for path in site.rglob("*.html"):
        if path.name != "404.html":  # its links are absolute: it may be shown anywhere
            found[SITE + path.relative_to(site).as_posix().removesuffix("index.html")] = Page(path)
    return found


def inside(page: str, links: list[str]) -> Iterator[tuple[str, str]]:
    """(address, anchor) of the links that stay on the site."""
    for link in links:
        address, anchor = urldefrag(urljoin(page, link))
        if address.startswith(SITE):
            yield address, unquote(anchor)


def test_every_page_of_the_repository_is_on_the_site(pages: dict[str, Page]) -> None:
    docs = ROOT / "docs"
    written = {path.relative_to(docs).with_suffix("").as_posix() for path in docs.rglob("*.md")}
    written = {name.removesuffix("/index") for name in written - {"index"}}
    outside = {"architecture", "benchmarks", "changelog", "chart", "contributing", "image", "security-policy"}
    assert {f"{SITE}{name}/" for name in written | outside} <= set(pages)


def test_no_link_of_the_site_is_broken(site: Path, pages: dict[str, Page]) -> None:
    broken = []
    for page, content in pages.items():
        for address, anchor in inside(page, content.links + content.fetched):
            known = address in pages or (site / unquote(address.removeprefix(SITE))).is_file()
            if not known or (address in pages and anchor not in pages[address].anchors):
                broken.append(f"{page}: {address}#{anchor}")
    assert broken == []


def test_no_link_into_the_repository_is_broken(pages: dict[str, Page]) -> None:
    source = "https://github.com/tide-relay/tide-relay/blob/main/"
    links = {link for content in pages.values() for link in content.links if link.startswith(source)}
    assert links
    assert [link for link in links if not (ROOT / urlsplit(link).path.split("/blob/main/")[1]).exists()] == []


def test_reading_it_asks_nobody_else_for_anything(site: Path, pages: dict[str, Page]) -> None:
    fetched = {urljoin(page, link) for page, content in pages.items() for link in content.fetched}
    assert {address for address in fetched if not address.startswith(SITE) and not address.startswith("data:")} == set()
    sheets = [path for path in site.rglob("*.css") if ELSEWHERE.search(path.read_text("utf-8"))]
    assert sheets == []


def test_every_table_and_every_list_is_one(site: Path) -> None:
    """Markdown differs: what is a table or a list in the repository must not be a line of dashes on the site."""
    broken = []
    for path in site.rglob("*.html"):
        text = re.sub(r"<(pre|code|script|style)\b.*?</\1>", "", path.read_text("utf-8"), flags=re.DOTALL)
        if found := re.search(r"<p>(?:\|.*\||[-*] |\d+\. )|^(?:[-*] |\|--)", text, re.MULTILINE):
            broken.append(f"{path.relative_to(site)}: {text[found.start() : found.start() + 80]!r}")
    assert broken == []


def test_a_concept_has_a_picture_that_says_what_it_shows() -> None:
    for path in (ROOT / "docs/concepts").glob("*.md"):
        [(told, picture)] = re.findall(r"^!\[(.+)\]\((\S+\.svg)\)$", path.read_text("utf-8"), re.MULTILINE)
        drawn = (path.parent / picture).read_text("utf-8")
        assert told
        assert "<title>" in drawn
        assert "prefers-color-scheme: dark" in drawn, f"{picture} cannot be read on a dark page"
