"""The fuzzers, for some seconds each; `make fuzz` gives them minutes. A failure names the command that repeats it."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from relay.inbox.rows import write_each
from relay.models import InboxRow
from tests.fuzz import http, signatures, templates
from tests.fuzz.decoding import Decoding
from tests.fuzz.running import SECONDS, new_seed, run
from tests.services.postgres import Database
from tests.web.api import make_hook, running_api

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(SECONDS + 110)]


def test_decoding(database: Database) -> None:
    """PostgreSQL judges what was decoded: a row is stored or refused, and nothing else is wrong with it."""
    with database.connect() as connection:
        connection.execute("select tide.inbox_create('commands')")
        counts = [0, 0]

        def store(rows: Sequence[InboxRow]) -> None:
            with connection.transaction(force_rollback=True):
                refused = write_each(connection, "commands", rows)
            counts[0] += len(rows)
            counts[1] += len(refused)

        fuzzing = Decoding(store)
        run("decoding", fuzzing, SECONDS, new_seed())
        fuzzing.flush()
        assert counts[0] > 10, "hardly anything was decoded"
        assert counts[1] < counts[0], "everything is refused"


def test_signatures() -> None:
    run("signatures", signatures.case, SECONDS, new_seed())


def test_templates() -> None:
    run("templates", templates.case, SECONDS, new_seed())


def test_http_of_metrics_and_health() -> None:
    with http.own_server() as fuzzing:
        run("http", fuzzing, SECONDS / 2, new_seed())
        fuzzing.check()


def test_http_of_webhooks(database: Database, tmp_path: Path) -> None:
    name = make_hook(database, "h")
    with running_api(database, tmp_path) as api:
        api.wait_for(name)
        sent = 0

        def is_well() -> None:
            nonlocal sent
            sent += 1
            assert api.process.poll() is None, api.log.read_text()[-4000:]
            http.healthy(api.port)
            assert api.send(name, f"msg_{sent}").status == 200

        fuzzing = http.Fuzzing(api.port, is_well, str(api.process.pid))
        run("http", fuzzing, SECONDS / 2, new_seed())
        fuzzing.check()
        assert "Traceback" not in api.log.read_text()
