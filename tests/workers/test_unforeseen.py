"""A message that meets a bug: a dead letter with the code `internal`, and its neighbours go on, in both directions."""

import json

import pytest
from structlog.testing import capture_logs

from relay.backends.memory.sink import MemorySink
from relay.backends.memory.source import MemorySource, forget
from relay.wire.decode import Decoder
from relay.wire.encode import Wire
from tests.nesting import TOO_DEEP


@pytest.fixture
def commands(bench):
    yield bench.receive_into("commands", slice_ms=200)
    forget("commands")


def dead(bench, name="message_id"):
    return bench.query(f"select {name}, code from tide.dead_letter order by 1")


def breaks(monkeypatch, kind, name, is_bad, error=RecursionError):
    """The method raises for a bad argument."""
    right = getattr(kind, name)

    def with_a_bug(self, argument, *others):
        if is_bad(argument):
            raise error("nested too deeply")
        return right(self, argument, *others)

    monkeypatch.setattr(kind, name, with_a_bug)


# Receiving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "step"), [(MemorySource, "convert"), (Decoder, "_row")])
@pytest.mark.parametrize("error", [RecursionError, MemoryError, KeyError])
def test_a_received_message_is_a_dead_letter_and_its_neighbours_are_rows(
    bench, commands, monkeypatch, kind, step, error
):
    breaks(monkeypatch, kind, step, lambda message: message.body == b"2", error)
    for body in (b"1", b"2", b"3"):
        commands.send(body, headers={"a": "b"})
    with capture_logs() as logs:
        assert bench.drain() == "more"
    assert bench.event_ids() == ["commands/0", "commands/2"]
    assert bench.query("select event_id, body, code from tide.dead_letter") == [("commands/1", b"2", "internal")]
    assert commands.acknowledged == {0, 1, 2}
    told = [line for line in logs if "traceback" in line]
    assert len(told) == 1
    assert "with_a_bug" in told[0]["traceback"]
    assert told[0]["log_level"] == "error"
    assert told[0]["message"] == "commands/1"
    # The bug is fixed, and the dead letter is retried.
    monkeypatch.undo()
    bench.query("select tide.relay_dlq_retry('p')")
    bench.drain()
    assert bench.event_ids() == ["commands/0", "commands/2", "commands/1"]


def test_a_dead_letter_that_meets_a_bug_again_stays_dead_and_its_neighbours_are_stored(bench, commands, monkeypatch):
    for body in (b"{1", b"{2"):
        commands.send(body, headers={"a": '\\ " \n'})
    bench.drain()
    bench.query("update tide.dead_letter set body = '1'")
    breaks(monkeypatch, Decoder, "_row", lambda message: message.id == "commands/0")
    bench.query("select tide.relay_dlq_retry('p')")
    bench.drain()
    assert bench.query("select event_id, headers ->> 'a' from tide.commands") == [("commands/1", '\\ " \n')]
    assert bench.query("select event_id, code, attempts from tide.dead_letter") == [("commands/0", "internal", 2)]


def test_headers_of_a_dead_letter_that_python_cannot_parse_do_not_stop_its_neighbours(bench, commands):
    for body in (b"{1", b"{2"):
        commands.send(body)
    bench.drain()
    deep = '{"deep": ' + TOO_DEEP + ', "n": 1}'
    bench.query("update tide.dead_letter set body = '1', headers = %s::text::jsonb where event_id = 'commands/0'", deep)
    bench.query("update tide.dead_letter set body = '1' where event_id = 'commands/1'")
    bench.query("select tide.relay_dlq_retry('p')")
    bench.drain()
    assert bench.event_ids() == ["commands/0", "commands/1"]


@pytest.mark.parametrize("step", ["fetch", "ack", "release"])
def test_a_bug_of_a_source_that_no_message_is_known_to_cause_does_not_cost_the_drain_its_end(
    bench, commands, monkeypatch, step
):
    breaks(monkeypatch, MemorySource, step, lambda _=None: True) if step != "release" else monkeypatch.setattr(
        MemorySource, "release", lambda _self: {}["bug"]
    )
    commands.send(b"1")
    outcome = bench.drain()
    assert bench.last("lease_until") is None
    if step == "release":
        assert outcome == "more"
    else:
        assert (outcome, bench.last("error_code")) == ("failed", "internal")
    monkeypatch.undo()
    bench.drain()
    assert bench.event_ids() == ["commands/0"], "once"


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("raise exception using errcode = 'AB123', message = 'not on Sundays'", "not on Sundays"),
        ("perform no_such_function(1)", "no_such_function"),
        ("assert false, 'no'", "no"),
    ],
    ids=["a state of the application's own", "a branch that is wrong", "an assertion"],
)
def test_what_a_trigger_raises_for_one_row_is_that_rows_matter(bench, commands, statement, reason):
    bench.query(
        f"""create function pick() returns trigger language plpgsql as $$
            begin if new.payload = '2' then {statement}; end if; return new; end $$"""
    )
    bench.query("create trigger pick before insert on tide.commands for each row execute function pick()")
    for body in (b"1", b"2", b"3"):
        commands.send(body)
    assert bench.drain() == "more"
    assert bench.event_ids() == ["commands/0", "commands/2"]
    [(event_id, code, why)] = bench.query("select event_id, code, reason from tide.dead_letter")
    assert (event_id, code) == ("commands/1", "refused")
    assert reason in why


def test_what_is_wrong_with_the_table_is_no_rows_matter(bench, commands):
    bench.query(
        "create function pick() returns trigger language plpgsql as $$ begin perform no_such_function(); end $$"
    )
    bench.query("create trigger pick before insert on tide.commands for each row execute function pick()")
    for body in (b"1", b"2"):
        commands.send(body)
    assert bench.drain() == "failed"
    assert dead(bench) == []
    bench.query("drop trigger pick on tide.commands")
    bench.drain()
    assert bench.event_ids() == ["commands/0", "commands/1"]


def test_a_dead_letter_whose_id_no_index_can_hold_is_kept(bench, commands):
    unlike = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(5000))
    bad = commands.entries
    commands.send(b"{no")
    bad[0] = bad[0]._replace(id=unlike, subject=unlike, key=unlike)
    commands.send(b"2")
    assert bench.drain() == "more"
    assert bench.event_ids() == ["commands/1"]
    [(event_id, body)] = bench.query("select event_id, body from tide.dead_letter")
    assert unlike.startswith(event_id.partition("~")[0])
    assert body == b"{no"


# Publishing ----------------------------------------------------------------------------------------------------------


def test_a_message_that_cannot_be_encoded_is_a_dead_letter_and_its_neighbours_are_delivered(bench, store, monkeypatch):
    ids = bench.publish(5)
    bad = {ids[0], ids[2]}
    breaks(monkeypatch, Wire, "records", lambda messages: any(message.id in bad for message in messages))
    assert bench.drain() == "idle"
    assert [record.id for record in store.received] == [ids[1], ids[3], ids[4]]
    assert dead(bench) == [(ids[0], "internal"), (ids[2], "internal")]
    assert bench.last("delivered") == 3
    monkeypatch.undo()
    bench.query("select tide.relay_dlq_retry('p')")
    bench.drain()
    assert [record.id for record in store.received][3:] == [ids[0], ids[2]]


def test_with_a_sink_that_keeps_the_offset_each_is_settled_before_the_next_is_sent(bench, store, monkeypatch):
    ids = bench.publish(5)
    monkeypatch.setattr(MemorySink, "keeps_offset", True)
    breaks(monkeypatch, Wire, "records", lambda messages: any(message.id == ids[2] for message in messages))
    assert bench.drain() == "failed"
    assert [record.id for record in store.received] == ids[:2]
    assert dead(bench) == [(ids[2], "internal")]
    assert bench.drain() == "idle"
    assert [record.id for record in store.received] == [*ids[:2], *ids[3:]]


def test_a_message_that_makes_the_sink_raise_is_a_dead_letter_and_its_neighbours_are_delivered(
    bench, store, monkeypatch
):
    ids = bench.publish(9)
    bad = {ids[0], ids[5]}
    breaks(monkeypatch, MemorySink, "publish", lambda records: any(record.id in bad for record in records))
    assert bench.drain() == "idle"
    assert [record.id for record in store.received] == [id_ for id_ in ids if id_ not in bad]
    assert dead(bench) == [(ids[0], "internal"), (ids[5], "internal")]


def test_a_sink_that_raises_whatever_it_is_given_costs_no_message(bench, store, monkeypatch):
    ids = bench.publish(4)
    breaks(monkeypatch, MemorySink, "publish", lambda _: True, TypeError)
    for _ in range(3):
        assert bench.drain() == "failed"
    assert bench.last("error_code") == "internal"
    assert dead(bench) == []
    monkeypatch.undo()
    assert bench.drain() == "idle"
    assert [record.id for record in store.received] == ids


def test_a_message_alone_that_makes_the_sink_raise_is_not_sent_forever(bench, store, monkeypatch):
    ids = bench.publish(1)
    breaks(monkeypatch, MemorySink, "publish", lambda records: any(record.id == ids[0] for record in records))
    outcomes = [bench.drain() for _ in range(7)]
    assert outcomes == ["failed"] * 5 + ["idle"] * 2
    assert dead(bench) == [(ids[0], "internal")]


def test_a_message_that_makes_an_object_sink_raise_is_a_dead_letter_of_the_object(bench, tmp_path, monkeypatch):
    from relay.backends.object_storage.encode import LinesEncoder

    bench.publish_to(
        sink_type="object_storage", path=str(tmp_path), create=True, compression="none", max_rows=6, batch_size=4
    )
    ids = bench.publish(6)
    breaks(monkeypatch, LinesEncoder, "add", lambda records: any(record.id == ids[4] for record in records))
    bench.drain()
    assert dead(bench) == [(ids[4], "internal")]
    [made] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [json.loads(line)["message_id"] for line in made.read_text().splitlines()] == [*ids[:4], ids[5]]


def test_a_message_that_makes_a_sink_in_this_database_raise_is_a_dead_letter(bench, monkeypatch):
    from relay.backends.postgresql import sink

    bench.query("select tide.inbox_create('local')")
    bench.publish_to(sink_type="inbox", inbox="local")
    ids = bench.publish(5)
    right = sink._row

    def with_a_bug(record):
        if record.id == ids[3]:
            raise RecursionError
        return right(record)

    monkeypatch.setattr(sink, "_row", with_a_bug)
    monkeypatch.setattr(sink.InboxSink, "inbox", None)  # else PostgreSQL moves them by itself
    assert bench.drain() == "idle"
    assert [n for (n,) in bench.query("select event_sequence from tide.local order by 1")] == [*ids[:3], ids[4]]
    assert dead(bench) == [(ids[3], "internal")]


def test_a_bug_of_the_drain_itself_ends_it_as_failed(bench, store, monkeypatch):
    from workers import forward

    bench.publish(1)
    monkeypatch.setattr(forward, "Reader", lambda *_: {}["bug"])
    assert bench.drain() == "failed"
    assert (bench.last("error_code"), bench.last("lease_until")) == ("internal", None)
    monkeypatch.undo()
    assert bench.drain() == "idle"
    assert len(store.received) == 1
