"""What the tests of `relay jobs` share: a queue, its worker in SQL, and the command."""

import json
from typing import Any

from tests.cli.command import invoke
from tests.services.postgres import Database
from tests.sql.jobs.jobs import Worker


class Bench:
    """A queue `mail`."""

    def __init__(self, database: Database, queue: str | None = "mail") -> None:
        self.database = database
        self.url = database.url
        self.session = database.connect()
        if queue:
            self.session.execute("select tide.job_queue_create(%s)", [queue])
            self.worker = Worker(self.session, queue)

    def relay(self, *words: object) -> Any:
        return invoke(*map(str, words), url=self.url)

    def verb(self, *words: object) -> Any:
        return self.relay("jobs", *words)

    def done(self, *words: object) -> str:
        """What it printed."""
        result = self.verb(*words)
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    def json(self, *words: object) -> Any:
        return json.loads(self.done(*words, "--json"))

    def enqueued(self, *words: object) -> str:
        return self.done("enqueue", "mail", "send", *words).strip()

    def states(self) -> dict[str, str]:
        return {job["job"]: job["state"] for job in self.json("list")}
