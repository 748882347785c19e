"""The write of a reverse drain: rows, dead letters and positions in one transaction, under the fence, once."""

import time

import pytest
from psycopg.types.json import Jsonb

from relay.drains.inbox import InboundBatch, Writer
from relay.errors import ConfigError, Fenced, NotConnected
from relay.models import Failure, InboxRow, Received
from tests.sql.support import LEASE_MS, begin, relay_session


@pytest.fixture
def db(database):
    with database.connect() as connection:
        connection.execute("select tide.inbox_create('commands')")
        connection.execute("select tide.relay_set_inbox('p', 'commands', %s)", [Jsonb({"source_type": "memory"})])
        yield connection


@pytest.fixture
def session(database, db):
    with relay_session(database.url) as connection:
        yield connection


@pytest.fixture
def writer(session):
    return Writer(begin(session), "dead_letter")


def received(name, body=b"{}", position=None):
    return Received(
        f"log/{name}", body, {"trace": "1"}, "key", "log", "log" if position else "", str(position or ""), None
    )


def row(name, payload='{"n": 1}', **fields):
    return InboxRow(name, "type", "source", "key", 7, payload, '{"h": "ü"}', "trace")._replace(**fields)


def batch(*names, dead=(), position=None, **fields):
    messages = [received(name, position=position) for name in names]
    return InboundBatch(messages, [(message, row(message.id[4:], **fields)) for message in messages], list(dead))


def write(writer, batch):
    writer.send(batch)
    return writer.confirm()


def ids(db):
    return [found[0] for found in db.execute("select event_id from tide.commands order by inbox_seq")]


def position(db):
    return dict(db.execute("select partition, position from tide.position").fetchall())


def dead_letters(db):
    return db.execute(
        "select event_id, inbox, subject, key, headers, body, code from tide.dead_letter order by 1"
    ).fetchall()


def test_a_batch_is_written_with_its_positions_and_counted(db, writer):
    result = write(writer, batch("a", "b", position=2))
    assert (result.stored, result.new, result.dead) == (2, 2, ())
    assert ids(db) == ["a", "b"]
    assert position(db) == {"log": "2"}
    assert db.execute("""select event_type, source, aggregate_id, event_sequence, payload, headers, trace_id
                           from tide.commands limit 1""").fetchone() == (
        "type", "source", "key", 7, {"n": 1}, {"h": "ü"}, "trace",
    )  # fmt: skip
    assert db.execute("select delivered, dead_letters from tide.drain").fetchone() == (2, 0)


def test_what_comes_again_is_not_written_again(db, writer):
    write(writer, batch("a", "b"))
    result = write(writer, batch("b", "c"))
    assert (result.stored, result.new) == (2, 1)
    assert ids(db) == ["a", "b", "c"]


def test_a_batch_of_dead_letters_alone_is_kept_and_moves_the_position(db, writer):
    bad = received("x", b"\xff\0", position=9)
    refused = (bad, Failure(0, True, "not_utf8", "no text"))
    result = write(writer, InboundBatch([bad], [], [refused]))
    assert result.dead == (refused,)
    write(writer, InboundBatch([bad], [], [refused]))  # it comes again
    assert dead_letters(db) == [("log/x", "commands", "log", "key", {"trace": "1"}, b"\xff\0", "not_utf8")]
    assert position(db) == {"log": "9"}


@pytest.mark.parametrize(
    "bad",
    [
        row("bad", "{no json"),
        row("bad", '"\\u0000"'),
        row("bad", "1" + "0" * 140_000),
        row("bad", event_id="x" * 10_000 + "".join(map(chr, range(1000, 9000)))),
        row("bad", headers="[1"),
        row("bad", event_type="a\0b"),
        row("bad", trace_id="\ud800"),
        row("bad", "[" * 100_000 + "]" * 100_000),
    ],
    ids=["json", "nul in json", "number", "long id", "headers", "nul", "surrogate", "nesting"],
)
@pytest.mark.parametrize("place", [0, 3, 6])
def test_what_postgresql_refuses_is_a_dead_letter_and_its_neighbours_are_written(db, writer, bad, place):
    good = [f"g{n}" for n in range(6)]
    rows = [(received(name, position=5), row(name)) for name in good]
    rows.insert(place, (received("bad", b"as it came", 5), bad))
    result = write(writer, InboundBatch([message for message, _ in rows], rows))
    assert [(message.id, failure.code) for message, failure in result.dead] == [("log/bad", "refused")]
    assert result.stored == 6
    assert ids(db) == good
    assert dead_letters(db) == [("log/bad", "commands", "log", "key", {"trace": "1"}, b"as it came", "refused")]
    assert position(db) == {"log": "5"}
    assert db.execute("select delivered, dead_letters from tide.drain").fetchone() == (6, 1)
    assert write(writer, batch("later")).new == 1, "the session goes on"


def test_a_constraint_of_the_users_own_refuses_a_row_alone(db, writer):
    db.execute("alter table tide.commands add check (event_type is not null)")
    rows = [(received(name), row(name, event_type=kind)) for name, kind in zip("abc", ("x", None, "y"), strict=True)]
    result = write(writer, InboundBatch([message for message, _ in rows], rows))
    assert [message.id for message, _ in result.dead] == ["log/b"]
    assert "violates check constraint" in result.dead[0][1].reason
    assert ids(db) == ["a", "c"]


def test_every_row_of_a_batch_may_be_refused(db, writer):
    result = write(writer, batch("a", "b", "c", payload="no"))
    assert len(result.dead) == 3
    assert ids(db) == []


def test_dead_letters_of_texts_that_postgresql_cannot_hold_are_kept_even_so(db, writer):
    odd = Received("log/\0\ud800", b"\0", {"a\0": "\udcff"}, "k\0", "s\0", token=None)
    write(writer, InboundBatch([odd], [], [(odd, Failure(0, True, "not_json", "why\0"))]))
    assert dead_letters(db) == [("log/\ufffd?", "commands", "s\ufffd", "k\ufffd", {"a\ufffd": "?"}, b"\0", "not_json")]


@pytest.mark.parametrize("payload", ["{}", "no json"], ids=["whole batch", "row by row"])
def test_a_fenced_drain_writes_nothing(db, writer, payload):
    db.execute("update tide.drain set epoch = epoch + 1")
    good, bad = received("a", position=3), received("x")
    writer.send(InboundBatch([good, bad], [(good, row("a", payload))], [(bad, Failure(0, True, "not_json", "no"))]))
    with pytest.raises(Fenced, match="was abandoned"):
        writer.confirm()
    assert (ids(db), position(db), dead_letters(db)) == ([], {}, [])


def test_a_write_and_an_idle_renewal_renew_the_lease(db, session):
    fenced = begin(session)
    lease, writer = fenced.lease, Writer(fenced, "dead_letter")
    for step in (lambda: write(writer, batch("a")), writer.renew):
        db.execute("update tide.drain set lease_until = clock_timestamp() + interval '1 ms'")
        lease._until = time.monotonic()
        step()
        assert lease.covers(LEASE_MS / 1000 - 5)
        [(left,)] = db.execute("select extract(epoch from lease_until - clock_timestamp()) from tide.drain").fetchall()
        assert left > LEASE_MS / 1000 - 10


def test_a_change_of_the_pipeline_is_seen(db, session):
    fenced = begin(session)
    writer = Writer(fenced, "dead_letter")
    steps = (lambda: write(writer, batch("a", "b")), writer.check_pipeline)
    seen = []
    for step in (*steps, lambda: db.execute("select tide.relay_disable('p')"), *steps):
        fenced.config_changed = False
        step()
        seen.append(fenced.config_changed)
    assert seen == [False, False, False, True, True]


def test_an_abandoned_drain_that_waits_learns_it(db, session):
    writer = Writer(begin(session), "dead_letter")
    db.execute("update tide.drain set epoch = epoch + 1")
    with pytest.raises(Fenced, match="was abandoned"):
        writer.check_pipeline()


def test_a_drain_begins_with_the_positions(db, session, writer):
    write(writer, batch("a", position=4))
    db.execute("update tide.drain set lease_until = null")
    start = begin(session, number=2).start
    assert (start.direction, start.inbox, start.positions) == ("reverse", "commands", {"log": "4"})


@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_refused_row_may_stop_all_that_follow(db, session, place):
    writer = Writer(begin(session), "stop")
    rows = [(received(f"g{n}", position=n + 1), row(f"g{n}")) for n in range(6)]
    rows.insert(place, (received("bad", position=9), row("bad", "{no json")))
    result = write(writer, InboundBatch([message for message, _ in rows], rows))
    assert [message.id for message in result.received] == [f"log/g{n}" for n in range(place)]
    assert "log/bad" in str(result.stopped)
    assert ids(db) == [f"g{n}" for n in range(place)]
    assert position(db) == ({"log": str(place)} if place else {})
    assert dead_letters(db) == []


def test_losing_the_table_is_no_refusal_of_rows(db, writer):
    db.execute("drop table tide.commands cascade")
    with pytest.raises(ConfigError, match=r"is gone\. Forget it"):
        write(writer, batch("a"))


def test_a_lost_session_is_not_taken_for_a_refusal(db, session, writer):
    db.execute("select pg_terminate_backend(%s)", [session.info.backend_pid])
    with pytest.raises(NotConnected):
        write(writer, batch("a"))
    assert (ids(db), dead_letters(db)) == ([], [])
