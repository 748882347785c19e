"""The outbox source: the suite, and what is true of it alone."""

import threading
import time
from collections.abc import Iterator

import pytest
from psycopg import sql

from relay.backends.postgresql.reader import Backlog, OutboxReader
from relay.backends.postgresql.source import OutboxSource
from relay.errors import ConfigError, NotConnected
from tests.backends.postgresql.outbox_source_harness import OUTBOX, OutboxSourceHarness, publish
from tests.backends.source_steps import Inbox, messages, numbers, opened, or_none, receive, store, take
from tests.backends.source_suite import SourceSuite
from tests.backends.steps import Limits, start, within
from tests.services.postgres import Database
from tests.services.proxy import Proxy
from tests.waiting import wait_until


@pytest.fixture
def harness(database: Database) -> Iterator[OutboxSourceHarness]:
    with Proxy(database.url) as proxy:
        yield OutboxSourceHarness(database, proxy)


class TestOutboxSource(SourceSuite):
    pass


def group_of(database: Database) -> tuple[int, bool] | None:
    """Offset of the pipeline's group, and whether its bell is armed."""
    with database.connect() as connection:
        return connection.execute(
            "select g.offset_id, b.armed from tide.consumer_group g join tide.bell b using (group_id) "
            "where g.name = 'contract'"
        ).fetchone()


def run_a_scheduler(database: Database) -> None:
    """As far as publishers know."""
    with database.connect() as connection:
        connection.execute(
            "insert into tide.scheduler (scheduler_id, relay_group_id, backend_pid, backend_start, host, pid, version, "
            "seen_at) values (gen_random_uuid(), 'default', 0, now(), 'here', 1, '1', now() + interval '1 hour')"
        )


class TestWhatIsReceived:
    def test_a_message_has_the_names_that_it_has_everywhere(self, harness: OutboxSourceHarness) -> None:
        with harness.database.connect() as connection:
            number = publish(connection, '{"n": 1.10}', {"type": "paid", "list": [1, 2]}, "k")
        with opened(harness) as source:
            (received,) = take(source, 1)
        created_at = received.headers.pop("relay-created-at")
        assert created_at.endswith("Z")
        assert received == (
            f"orders:{number}",
            b'{"n": 1.10}',
            {"type": "paid", "list": "[1,2]", "relay-id": f"orders:{number}", "relay-outbox": "orders"},
            "k",
            "orders",
            "orders",
            str(number),
            number,
            None,
        )

    def test_messages_of_a_slow_transaction_are_not_passed_over(self, harness: OutboxSourceHarness) -> None:
        with opened(harness) as source, harness.database.connect(autocommit=False) as slow:
            publish(slow, '{"n": 1}')
            harness.send(messages(2, 1))
            assert receive(source, 10, 0.3) == []
            waiting = start(lambda: take(source, 2))
            slow.commit()
            assert numbers(waiting(Limits.moment_seconds)) == [1, 2]

    def test_messages_that_were_rolled_back_are_passed_over_and_do_not_hold_up_retention(
        self, harness: OutboxSourceHarness
    ) -> None:
        with opened(harness) as source:
            harness.send(messages(1, 1))
            source.ack(take(source, 1))
            with harness.database.connect(autocommit=False) as connection:
                last = publish(connection, "1")
                connection.rollback()
            assert receive(source, 10, 0.2) == []
            assert group_of(harness.database) == (last, True)

    def test_the_group_over_there_follows_what_is_stored(self, harness: OutboxSourceHarness) -> None:
        harness.send(messages(1, 20))
        with opened(harness) as source:
            received = take(source, 20)
            assert group_of(harness.database) == (0, False)
            source.ack(received[:10])
            assert group_of(harness.database) == (received[9].token, False)
            source.ack(received[:5])
            assert group_of(harness.database) == (received[9].token, False)
            source.release()
            assert numbers(take(source, 10)) == list(range(11, 21))


class TestHowItWaits:
    @pytest.fixture
    def only_the_bell(self, harness: OutboxSourceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        """A scheduler runs, and no look now and then finds what the bell would tell."""
        run_a_scheduler(harness.database)
        monkeypatch.setattr("relay.backends.postgresql.source.RUNG_PAUSE_SECONDS", 60.0)

    @pytest.mark.usefixtures("only_the_bell")
    def test_the_bell_ends_a_wait_where_a_scheduler_runs(self, harness: OutboxSourceHarness) -> None:
        with opened(harness, idle_poll_ms=60_000) as source:
            source.receive(1, 0.01)
            for number in range(1, 6):
                coming = start(lambda: receive(source, 10, 20))
                wait_until(lambda: (group_of(harness.database) or (0, False))[1])
                harness.send(messages(number, 1))
                assert numbers(coming(Limits.moment_seconds)) == [number]

    def test_where_none_runs_it_looks_by_itself(self, harness: OutboxSourceHarness) -> None:
        with opened(harness, idle_poll_ms=10) as source:
            coming = start(lambda: receive(source, 10, 20))
            wait_until(lambda: (group_of(harness.database) or (0, False))[1])
            harness.send(messages(1, 1))
            assert numbers(coming(Limits.moment_seconds)) == [1]

    @pytest.mark.usefixtures("only_the_bell")
    def test_closing_does_not_wait_for_the_bell(self, harness: OutboxSourceHarness) -> None:
        with opened(harness) as source:
            coming = start(lambda: or_none(lambda: receive(source, 10, 20)))
            wait_until(lambda: (group_of(harness.database) or (0, False))[1])
            within(Limits.moment_seconds, source.close)
            assert coming(Limits.moment_seconds) is None

    @pytest.mark.usefixtures("only_the_bell")
    def test_the_bell_of_another_outbox_does_not_end_a_wait(
        self, harness: OutboxSourceHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        peeked: list[int] = []
        peek = OutboxReader.peek

        def counted(reader: OutboxReader, after: int, max_messages: int) -> Backlog:
            peeked.append(after)
            return peek(reader, after, max_messages)

        monkeypatch.setattr(OutboxReader, "peek", counted)
        with opened(harness) as source, harness.database.connect() as connection:
            coming = start(lambda: receive(source, 10, 1.0))
            wait_until(lambda: (group_of(harness.database) or (0, False))[1])
            connection.execute("select pg_notify('tide_outbox_notify', 'another')")
            assert coming(Limits.moment_seconds) == []
        # Before the bell was armed, after it, and when the time was over.
        assert len(peeked) == 3

    def test_a_busy_source_silences_the_bell_and_so_does_one_that_rests(self, harness: OutboxSourceHarness) -> None:
        with opened(harness) as source:
            assert receive(source, 1, 0.01) == []
            assert group_of(harness.database) == (0, True)
            harness.send(messages(1, 3))
            take(source, 1, batch=1)
            assert group_of(harness.database) == (0, True)
            take(source, 1, batch=1)
            assert group_of(harness.database) == (0, False)
            take(source, 1, batch=1)
            assert receive(source, 1, 0.01) == []
            assert group_of(harness.database) == (0, True)
            source.release()
            assert group_of(harness.database) == (0, False)
            assert receive(source, 3, 0) != []
            assert receive(source, 1, 0.01) == []
        assert group_of(harness.database) == (0, False)

    def test_nothing_is_lost_and_order_holds_with_many_publishers(self, harness: OutboxSourceHarness) -> None:
        run_a_scheduler(harness.database)
        writers, each = 6, 60

        def write(writer: int) -> None:
            with harness.database.connect(autocommit=False) as connection:
                for number in range(each):
                    publish(connection, f'{{"n": {writer * each + number}}}', key=str(writer))
                    if number % 7 == 3:
                        connection.rollback()
                        publish(connection, f'{{"n": {writer * each + number}}}', key=str(writer))
                    if number % 3 == 0:
                        connection.commit()
                connection.commit()

        with opened(harness) as source:
            threads = [threading.Thread(target=write, args=[writer]) for writer in range(writers)]
            for thread in threads:
                thread.start()
            received = []
            deadline = time.monotonic() + Limits.patience_seconds
            while time.monotonic() < deadline:
                written = not any(thread.is_alive() for thread in threads)
                found = receive(source, 50, 0.1)
                source.ack(found)
                received += found
                if written and not found:
                    break
        tokens = [message.token for message in received]
        assert tokens == sorted(set(tokens))
        with harness.database.connect() as connection:
            [(stored,)] = connection.execute("select array_agg(id order by id) from tide.message").fetchall()
        assert tokens == stored


class TestAccess:
    def test_the_group_is_the_pipelines_unless_one_is_named(self, harness: OutboxSourceHarness) -> None:
        with opened(harness, consumer_group="of-the-shop"):
            assert group_of(harness.database) is None
        with opened(harness):
            assert group_of(harness.database) == (0, False)

    def test_a_group_of_a_pipeline_over_there_is_refused(self, harness: OutboxSourceHarness) -> None:
        with harness.database.connect() as connection:
            connection.execute("""select tide.relay_set_outbox('theirs', 'orders', '{"sink_type": "stdout"}')""")
        with pytest.raises(ConfigError, match="consumer group 'theirs' belongs to the pipeline 'theirs'"):
            harness.make_source(consumer_group="theirs").open({})

    def test_a_group_that_consumers_poll_is_refused(self, harness: OutboxSourceHarness) -> None:
        with harness.database.connect() as connection:
            connection.execute("select tide.create_consumer_group('theirs', 'orders')")
        with pytest.raises(ConfigError, match="consumer group 'theirs' is polled by SQL consumers"):
            harness.make_source(consumer_group="theirs").open({})

    def test_an_outbox_that_was_made_anew_is_not_skipped_silently(self, harness: OutboxSourceHarness) -> None:
        harness.send(messages(1, 3))
        with pytest.raises(ConfigError, match="message 4 is stored, and the outbox has come to 3 only"):
            harness.make_source().open({OUTBOX: "4"})
        with opened(harness, {OUTBOX: "3"}) as source:
            assert receive(source, 10, 0) == []

    def test_so_is_one_that_has_as_many_messages_as_before(self, harness: OutboxSourceHarness) -> None:
        harness.send(messages(1, 3))
        inbox = Inbox()
        with opened(harness) as source:
            store(source, inbox, take(source, 3))
            positions = inbox.positions | dict(source.begun)
        with opened(harness, positions) as source:
            assert not source.begun
            assert receive(source, 10, 0) == []
        with harness.database.connect() as connection:
            connection.execute("select tide.outbox_drop(%s, true)", [OUTBOX])
            connection.execute("select tide.outbox_create(%s)", [OUTBOX])
        harness.send(messages(1, 9))
        with pytest.raises(ConfigError, match="message 3 of an outbox of this name is stored that was dropped"):
            harness.make_source().open(positions)

    def test_the_rights_of_a_relay_are_enough_once_the_group_is_there(self, harness: OutboxSourceHarness) -> None:
        role = f"reader_of_{harness.database.name}"
        with harness.database.admin() as admin:
            admin.execute(sql.SQL("create role {} login password 'reader'").format(sql.Identifier(role)))
        try:
            with harness.database.connect() as connection:
                connection.execute("select tide.grant_relay(%s)", [role])
            url = harness.database.server.process.url_of(harness.database.name, role, "reader")
            with pytest.raises(ConfigError, match="may not make it: let the schema's owner run grant insert"):
                harness.make_source(postgres_url=url).open({})
            with opened(harness):
                pass
            harness.send(messages(1, 2))
            with opened(harness, postgres_url=url) as source:
                source.ack(take(source, 2))
                assert receive(source, 1, 0.01) == []
        finally:
            with harness.database.admin() as admin:
                admin.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(role)))

    def test_a_standby_is_refused_because_it_does_not_show_open_publishers(self, harness: OutboxSourceHarness) -> None:
        name = sql.Identifier(harness.database.name)
        with harness.database.admin() as admin:
            admin.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(name))
        with pytest.raises(NotConnected, match="read-only"):
            harness.make_source().open({})

    def test_a_database_without_our_schema_is_refused(
        self, harness: OutboxSourceHarness, empty_database: Database
    ) -> None:
        with pytest.raises(ConfigError, match="relay migrate"):
            harness.make_source(postgres_url=empty_database.url).open({})

    @pytest.mark.parametrize("url", ["orders", "mysql://x", "postgresql://u:hunter2@[::1"])
    def test_a_wrong_address_is_refused_without_being_quoted(self, url: str) -> None:
        with pytest.raises(ValueError, match="postgres_url") as caught:
            OutboxSource.config_model.model_validate({"postgres_url": url, "outbox": "orders"})
        assert "hunter2" not in str(caught.value)
