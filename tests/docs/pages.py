"""The examples of documentation pages, to be run as they are printed."""

import re
from collections.abc import Mapping

from tests.docs.backend_pages import section
from tests.e2e.drains import Drains
from tests.paths import ROOT

NOT_HERE = re.compile(r"localhost|127\.0\.0\.1:(?:80|8000|9000|5000|4222)\b|example\.com|/var/")
"""What a test may not leave in an example: it would leave this machine, or this test's own services."""


def text_of(page: str) -> str:
    """Of a page such as `reference/sql`, of a section of it such as `backends/kafka#sink`, or of the README."""
    name, _, anchor = page.partition("#")
    text = (ROOT / "README.md" if name == "README" else ROOT / "docs" / f"{name}.md").read_text()
    return section(text, anchor) if anchor else text


def blocks(page: str, language: str = "sql") -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)
    return found


def first_example(page: str, put: Mapping[str, str] | None = None) -> str:
    """The first block of SQL, in which nothing is changed but what `put` says: addresses, credentials, paths."""
    return substituted(blocks(page)[0], put or {})


def substituted(text: str, put: Mapping[str, str]) -> str:
    for printed, here in put.items():
        assert printed in text, f"{printed} is not in the example"
        text = text.replace(printed, here)
    left = [found for found in NOT_HERE.findall(text) if not any(found in here for here in put.values())]
    assert not left, f"still in the example: {left}"
    return text


def command(page: str, beginning: str) -> str:
    """The one command of a page, in a line or in a block, that begins so; the test runs it, or does what it says."""
    (found,) = re.findall(
        rf"`({re.escape(beginning)}[^`]*)`|^( *{re.escape(beginning)}.*)$", text_of(page), re.MULTILINE
    )
    return (found[0] or found[1]).strip().replace("\n", " ")


def run(drains: Drains, page: str, put: Mapping[str, str] | None = None) -> str:
    """Runs the first example of a page; the name of its pipeline."""
    example = first_example(page, put)
    drains.db.execute(example)
    (name,) = re.findall(r"tide\.relay_set_(?:outbox|inbox)\(\s*'([^']+)'", example)
    return str(name)


def deliver(drains: Drains, page: str, put: Mapping[str, str] | None = None) -> None:
    """Runs the first example of a sink, and delivers what it publishes."""
    name = run(drains, page, put)
    drains.until_idle(name)
    assert drains.query("select message_id, code, reason from tide.dead_letter") == []
