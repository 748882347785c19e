"""Pages about stream tables, run block after block with a fleet, by the programs that a reader uses."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from relay.local.servers import EmbeddedRedis
from tests.cli.command import environment, invoke
from tests.docs.pages import text_of
from tests.fleets.processes import Fleet, running_fleet
from tests.services.postgres import Database, PostgresServer

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
"""What readers do not see."""
RESULT = re.compile(r"^ ?-[-+]*$", re.MULTILINE)
"""The line below the titles of a result, which no diagram has."""
ELSEWHERE = ("python3 ", "pip ", ". tide", "relay up", "psql ")
"""How commands begin that other tests run, or that are for a terminal."""


@dataclass
class StreamSite:
    """A database with a fleet that waits for stream tables."""

    database: Database
    broker_url: str
    fleet: Fleet

    def read(self, page: str) -> None:
        """Runs every block of a page, from the top. What the page says a statement prints is what it prints."""
        printed = ""
        for language, text in BLOCK.findall(COMMENT.sub("", text_of(page))):
            if language == "sql":
                printed = psql(self.database, text)
            elif language == "sh":
                self.run(text)
            elif RESULT.search(text):
                assert _lines(text) in _lines(printed), f"{page} says:\n{text}\nbut:\n{printed}"

    def run(self, commands: str) -> str:
        """What the commands of a block print."""
        lines = [line for line in commands.splitlines() if not line.startswith(ELSEWHERE)]
        return "".join(self.relay(*shlex.split(line)[1:]) for line in lines)

    def relay(self, *words: str) -> str:
        done = invoke(*words, url=self.database.url, RELAY_BROKER_URL=self.broker_url)
        assert done.exit_code == 0, f"relay {' '.join(words)}: {done.output}"
        return str(done.stdout)


@contextmanager
def stream_site(postgres: PostgresServer, redis: EmbeddedRedis, folder: Path) -> Iterator[StreamSite]:
    postgres.start()
    redis.start()
    database = postgres.create_database()
    with running_fleet(database.fleet_url(), redis.url, folder) as fleet:
        fleet.scheduler(RELAY_DISCOVERY_INTERVAL="1s")
        fleet.workers()
        fleet.wait_ready()
        yield StreamSite(database, redis.url, fleet)
    postgres.drop_database(database)


def psql(database: Database, script: str, *options: str) -> str:
    """What psql prints for a script, which must not fail."""
    command = [str(database.server.clients / "psql"), "-X", "-q", "-P", "footer=off", "-v", "ON_ERROR_STOP=1", *options]
    done = subprocess.run(
        [*command, database.url],
        input=script,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stderr}"
    return done.stdout


def _lines(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())
