"""What is true of the inbox sink alone."""

from typing import Any

import pytest

from relay.backends.postgresql.sink import InboxSink
from relay.errors import ConfigError, NotConnected
from relay.models import Record
from tests.backends.harness import PIPELINE
from tests.backends.postgresql.inbox_harness import InboxHarness
from tests.backends.steps import Limits, opened, publish, record, records, start, within
from tests.services.postgres import Database

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def harness(inbox_database: Database) -> InboxHarness:
    return InboxHarness(inbox_database)


def problem(harness: InboxHarness, **keys: Any) -> str:
    sink = harness.make_sink(**keys)
    with pytest.raises(ConfigError) as caught:
        within(Limits.moment_seconds, sink.open)
    sink.close()
    assert PIPELINE in str(caught.value)
    return str(caught.value)


class TestRows:
    def test_a_row_says_where_the_message_comes_from(self, harness: InboxHarness) -> None:
        headers = {"type": "order.paid", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "tenant": "Zoë"}
        sent = Record(17, "a.b:17", "", "k1", b'{"total": 1}', headers)
        with opened(harness) as sink:
            assert publish(sink, [sent, record(harness, 18)]) == []
        full, plain = harness.rows()
        expected = {
            "event_id": "a.b:17",
            "event_type": "order.paid",
            "source": "a.b",
            "aggregate_id": "k1",
            "event_sequence": 17,
            "payload": {"total": 1},
            "headers": headers,
            "trace_id": TRACE,
            "processed_at": None,
            "retry_count": 0,
        }
        assert full.items() >= expected.items()
        nothing: dict[str, Any] = {"event_type": None, "aggregate_id": None, "headers": {}, "trace_id": None}
        assert plain.items() >= nothing.items()

    @pytest.mark.parametrize(
        "traceparent", ["", "00-short-1-01", f"{TRACE}", f"00-{TRACE.upper()}-00f067aa0ba902b7-01"]
    )
    def test_what_is_no_trace_is_left_out(self, harness: InboxHarness, traceparent: str) -> None:
        with opened(harness) as sink:
            assert publish(sink, [record(harness, 1, headers={"traceparent": traceparent})]) == []
        assert harness.rows()[0]["trace_id"] is None

    def test_listeners_hear_of_a_batch_once_and_not_of_what_was_there(self, harness: InboxHarness) -> None:
        with opened(harness) as sink, harness.database.connect() as listener:
            listener.execute("listen tide_inbox")
            publish(sink, records(harness, 1, 50))
            publish(sink, records(harness, 1, 50))
            publish(sink, records(harness, 51, 1))
            heard = [notice.payload for notice in listener.notifies(timeout=5, stop_after=2)]
            heard += [notice.payload for notice in listener.notifies(timeout=0)]
        assert heard == [harness.inbox, harness.inbox]

    def test_two_that_send_the_same_write_it_once(self, harness: InboxHarness) -> None:
        """A worker that was paused, and its successor."""
        with opened(harness) as one, opened(harness) as other:
            batch = records(harness, 1, 300)
            waiting = [start(lambda sink=sink: publish(sink, batch)) for sink in (one, other)]  # type: ignore[misc]
            assert [wait(Limits.patience_seconds) for wait in waiting] == [[], []]
        assert [row["event_sequence"] for row in harness.rows()] == list(range(1, 301))


class TestRefusals:
    def test_each_record_that_postgresql_cannot_take_is_named_and_the_others_are_written(
        self, harness: InboxHarness
    ) -> None:
        batch = records(harness, 1, 100)
        bad = {0: b"", 13: b"{", 14: b'"\\u0000"', 57: b"\xff", 99: b"nul"}
        for index, body in bad.items():
            batch[index] = batch[index]._replace(body=body)
        batch[30] = batch[30]._replace(key="a\0b")
        batch[31] = batch[31]._replace(headers={"a": "\ud800"})
        with opened(harness) as sink:
            failures = publish(sink, batch)
        assert [failure.index for failure in failures] == sorted([*bad, 30, 31])
        assert all(failure.permanent and failure.code == "refused" for failure in failures)
        refused = {failure.index + 1 for failure in failures}
        assert [row["event_sequence"] for row in harness.rows()] == [n for n in range(1, 101) if n not in refused]

    def test_a_constraint_of_your_own_is_heard(self, harness: InboxHarness) -> None:
        with harness.database.connect() as owner:
            owner.execute(f'alter table tide."{harness.inbox}" add check (event_sequence <> 3)')
        with opened(harness) as sink:
            (failure,) = publish(sink, records(harness, 1, 5))
        assert (failure.index, failure.permanent, failure.code) == (2, True, "refused")
        assert "check constraint" in failure.reason
        assert [row["event_sequence"] for row in harness.rows()] == [1, 2, 4, 5]


class TestOpening:
    def test_a_database_without_the_schema_is_told_to_migrate(
        self, harness: InboxHarness, empty_database: Database
    ) -> None:
        assert "relay migrate" in problem(harness, postgres_url=empty_database.url)

    def test_code_of_others_on_the_inbox_is_told_of_with_what_to_do(self, harness: InboxHarness) -> None:
        with harness.database.admin() as admin, harness.database.connect() as owner:
            admin.execute("""
                create schema app;
                create role other;
                create function app.fire() returns trigger language plpgsql as $$ begin return new; end $$;
                alter function app.fire() owner to other;
                grant usage on schema app to public""")
            try:
                owner.execute(f"""
                    create trigger t before insert on tide."{harness.inbox}"
                        for each row execute function app.fire()""")
                text = problem(harness)
                assert "function app.fire(), which belongs to other" in text
                assert "let it belong to" in text
            finally:
                admin.execute("drop schema app cascade; drop role other")

    def test_a_user_without_the_right_is_told_whom_to_ask_and_needs_no_more(self, harness: InboxHarness) -> None:
        database = harness.database
        role = f"writer_{database.name}"
        with database.admin() as admin:
            admin.execute(f"create role {role} login password 'writer'")
        url = database.server.process.url_of(database.name, role, "writer")
        try:
            assert f"tide.grant_inbox_writer('{role}')" in problem(harness, postgres_url=url)
            with database.connect() as owner:
                owner.execute("select tide.grant_inbox_writer(%s)", [role])
            with opened(harness, postgres_url=url) as sink:
                assert publish(sink, records(harness, 1, 2)) == []
            text = problem(harness, postgres_url=url, inbox="others", create_inbox=True)
            assert "may not make it" in text
            assert "tide.inbox_create('others')" in text
        finally:
            with database.admin() as admin:
                admin.execute(f"drop owned by {role}; drop role {role}")
        assert len(harness.rows()) == 2

    def test_an_inbox_that_exists_is_not_made_again(self, harness: InboxHarness) -> None:
        with opened(harness, create_inbox=True) as sink:
            assert publish(sink, records(harness, 1, 1)) == []

    @pytest.mark.parametrize(
        "url", ["host=x password=hunter2", "postgresql://u:hunter2@h:port/d", "mysql://u:hunter2@h"]
    )
    def test_a_url_that_is_none_is_not_quoted(self, url: str) -> None:
        with pytest.raises(ValueError, match="postgres_url") as caught:
            InboxSink.config_model.model_validate({"inbox": "x", "postgres_url": url})
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("keys", [{"inbox_table": "x"}, {"inbox": "x", "postgres_url": "${env:URL}"}])
    def test_both_names_and_references_are_understood(self, keys: dict[str, str]) -> None:
        InboxSink.config_model.model_validate(keys)


class TestTroubles:
    @pytest.mark.parametrize(("timeout_ms", "code"), [(300, "timeout"), (60_000, "locked")])
    def test_a_table_that_is_locked_is_waited_for_until_the_limit_and_not_long(
        self, harness: InboxHarness, timeout_ms: int, code: str
    ) -> None:
        with opened(harness, timeout_ms=timeout_ms) as sink, harness.database.connect(autocommit=False) as other:
            other.execute(f'lock table tide."{harness.inbox}"')
            with pytest.raises(NotConnected) as caught:
                within(2 + Limits.moment_seconds, lambda: publish(sink, records(harness, 1, 1)))
            assert caught.value.code == code
            other.rollback()
            sink.open()
            assert publish(sink, records(harness, 1, 1)) == []
        assert len(harness.rows()) == 1

    def test_a_session_that_is_ended_is_not_connected(self, harness: InboxHarness) -> None:
        with opened(harness) as sink:
            with harness.database.admin() as admin:
                admin.execute(
                    "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                    " where datname = current_database() and application_name = 'tide-relay inbox sink'"
                )
            with pytest.raises(NotConnected):
                publish(sink, records(harness, 1, 1))
            sink.open()
            assert publish(sink, records(harness, 1, 1)) == []

    def test_a_server_that_became_read_only_is_not_a_bug(self, harness: InboxHarness) -> None:
        with opened(harness) as sink:
            with harness.database.connect() as owner:
                owner.execute(f"alter database {harness.database.name} set default_transaction_read_only = on")
            try:
                for call in (sink.open, lambda: publish(sink, records(harness, 1, 1))):
                    with pytest.raises(NotConnected):
                        call()
            finally:
                with harness.database.connect(autocommit=False) as owner:
                    owner.read_only = False
                    owner.execute(f"alter database {harness.database.name} set default_transaction_read_only = off")
            sink.open()
            assert publish(sink, records(harness, 1, 1)) == []

    def test_an_inbox_that_was_dropped_is_not_connected_and_then_for_a_person(self, harness: InboxHarness) -> None:
        with opened(harness) as sink:
            with harness.database.connect() as owner:
                owner.execute("select tide.inbox_drop(%s)", [harness.inbox])
            with pytest.raises(NotConnected):
                publish(sink, records(harness, 1, 1))
            assert f"tide.inbox_create('{harness.inbox}')" in problem(harness)

    def test_what_is_confirmed_is_on_disk_and_the_server_has_the_limit_too(self, harness: InboxHarness) -> None:
        """Workers wait for the disk only where they say so; a session of the sink's own always does."""
        with opened(harness, timeout_ms=4321) as sink:
            assert isinstance(sink, InboxSink)
            assert sink._session is not None
            asked = ("show synchronous_commit", "show statement_timeout")
            shown = [sink._session.execute(question).fetchone() for question in asked]
            assert shown == [("on",), ("4321ms",)]


def test_closing_ends_a_call_that_a_silent_server_holds(harness: InboxHarness) -> None:
    with opened(harness, timeout_ms=400) as sink, harness.stall():
        publishing = start(lambda: publish(sink, records(harness, 1, 1)))
        within(0.4 + Limits.moment_seconds, sink.close)
        with pytest.raises(NotConnected) as caught:
            publishing(Limits.moment_seconds)
    assert caught.value.code in {"timeout", "closed"}
