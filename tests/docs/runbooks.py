"""The sections of docs/operations/runbooks.md, executed as printed on a fleet that has the problem."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.cli.command import invoke
from tests.docs.pages import substituted, text_of
from tests.waiting import wait_until

PAGE = "operations/runbooks"
PARTS = ("Symptoms.", "Meaning.", "Diagnosis.", "Fix.", "Resolved when", "If you do nothing")
# A machine that is loaded may take so long for what takes a second as a rule.
PATIENCE_SECONDS = 90


def headings() -> list[str]:
    return re.findall(r"^### (.+)$", text_of(PAGE), re.MULTILINE)


@dataclass
class Runbook:
    """One section, with the database and the broker of the fleet that has the trouble."""

    heading: str
    url: str
    broker_url: str
    put: Mapping[str, str] = field(default_factory=dict)
    """What is printed, and what stands for it here."""
    missing: list[str] = field(default_factory=list)
    """The symptoms that were not seen at the last look."""

    def part(self, name: str) -> str:
        section = re.search(
            rf"^### {re.escape(self.heading)}\n(.*?)(?=^##|\Z)", text_of(PAGE), re.DOTALL | re.MULTILINE
        )
        assert section, f"the page has no section {self.heading}"
        found = re.search(rf"^\*\*{re.escape(name)}(.*?)(?=^\*\*|\Z)", section[1], re.DOTALL | re.MULTILINE)
        assert found, f"{self.heading} has no part {name}"
        return found[1]

    def blocks(self, name: str) -> list[tuple[str, str]]:
        """Language and text of each block of a part, in order."""
        return re.findall(r"^```(\w+)\n(.*?)^```$", self.part(name), re.DOTALL | re.MULTILINE)

    def symptoms(self) -> list[str]:
        """The quoted words that the commands under "Diagnosis" print while there is trouble."""
        quoted = re.findall(r"`([^`]+)`", self.part("Symptoms."))
        return [words for words in quoted if not words.startswith(("relay ", "tide_", "tide.", "/", "No space"))]

    def look(self, *elsewhere: str) -> None:
        """Until the commands print every symptom, and every statement has rows. `elsewhere`: symptoms shown by logs."""

        def shows() -> bool:
            printed = " ".join(self._run("Diagnosis.", rows_wanted=False).split())
            self.missing = [words for words in self.symptoms() if words not in printed and words not in elsewhere]
            return not self.missing

        try:
            wait_until(shows, PATIENCE_SECONDS, f"the symptoms of {self.heading} show")
        finally:
            print("not shown:", self.missing)
        self._run("Diagnosis.", rows_wanted=True)

    def fix(self) -> str:
        return self._run("Fix.")

    def wait_over(self) -> None:
        wait_until(self.is_over, PATIENCE_SECONDS, f"{self.heading} is over")

    def is_over(self) -> bool:
        [(_, statement)] = self.blocks("Resolved when")
        [answer] = self.query(statement)[0].values()
        return bool(answer)

    def _run(self, part: str, rows_wanted: bool = False) -> str:
        printed = []
        for language, text in self.blocks(part):
            if language == "sh":
                printed += [self.relay(line) for line in text.splitlines()]
            else:
                rows = self.query(text)
                assert rows or not rows_wanted, f"no rows while there is trouble:\n{text}"
                printed += [f"{name} {value}" for row in rows for name, value in row.items() if value is not False]
        return "\n".join(printed)

    def relay(self, line: str) -> str:
        program, *words = shlex.split(line)
        assert program == "relay", line
        result = invoke(*words, url=self.url, RELAY_BROKER_URL=self.broker_url)
        looks = words[0] in ("doctor", "status", "migrate", "history")
        assert result.exit_code == 0 or looks, f"{line}: {result.output}"
        return str(result.output)

    def query(self, text: str) -> list[dict[str, Any]]:
        """All statements of a block; the rows of the last."""
        put = {printed: here for printed, here in self.put.items() if printed in text}
        with psycopg.connect(self.url, autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(substituted(text, put))
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []
