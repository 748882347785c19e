"""`relay doctor` where there are thousands of outboxes and pipelines: what it reads once, and how much it prints."""

from collections.abc import Iterator

import pytest

from relay.database.connection import Connection
from relay.operations import libraries
from relay.operations.doctor import pipelines
from relay.operations.doctor.findings import Finding, failed, ok, warning
from relay.operations.doctor.run import FINDINGS_SHOWN, _Examination
from relay.settings import Settings
from tests.services.postgres import Database
from tests.sql.support import make_pipeline, relay_session

NONE = Settings(postgres_url="postgresql://")


def test_what_is_installed_is_read_once_for_each_backend(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        make_pipeline(database, name)
    asked: list[str] = []

    def missing(extra: str) -> list[str]:
        asked.append(extra)
        return []

    monkeypatch.setattr(pipelines, "missing_distributions", missing)
    with relay_session(database.url) as session:
        list(pipelines.pipelines(session, NONE))
    assert asked == ["memory"]
    assert libraries.missing_distributions("memory") == []


def found_by(database: Database, findings: list[Finding]) -> list[Finding]:
    def check(_connection: Connection, _settings: Settings) -> Iterator[Finding]:
        yield from findings

    with relay_session(database.url) as session:
        return list(_Examination(session, NONE, has_broker=False)._check(check))


def test_of_thousands_of_findings_the_first_are_shown_and_the_others_counted(database: Database) -> None:
    wrong = [failed(f"pipeline p{n}", "invalid", "fix it") for n in range(5000)]
    *shown, rest = found_by(database, wrong)
    assert shown == wrong[:FINDINGS_SHOWN]
    assert (rest.result, rest.found) == (
        "failed",
        f"{5000 - FINDINGS_SHOWN:,} more findings are not shown".replace(",", ""),
    )


def test_one_that_failed_among_those_that_are_not_shown_counts(database: Database) -> None:
    findings = [warning("w", "odd", "fix it")] * FINDINGS_SHOWN
    assert found_by(database, findings) == findings
    assert found_by(database, [*findings, warning("w", "odd", "fix it")])[-1].result == "warning"
    last = found_by(database, [*findings, failed("w", "bad", "fix it"), ok("w", "fine")])
    assert [finding.result for finding in last[FINDINGS_SHOWN:]] == ["ok", "failed"]
