"""Claims and marks: a message is worked on by one at a time, comes again after a failure, and is dead after enough."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sql.inbox.inboxes import call, claim, end_lease, failed, fill, fill_many, names, processed
from tests.sql.support import refused


@pytest.fixture
def db(database):
    with database.connect() as connection:
        call(connection, "tide.inbox_create('commands')")
        yield connection


def test_a_claim_gives_the_oldest_with_all_that_the_message_says(db):
    fill(db, "a", event_type="t", source="s", aggregate_id="g", event_sequence=3, trace_id="x", payload='{"n": 1}')
    fill(db, "b")
    row = db.execute("select * from tide.inbox_claim('commands', 'w', batch_size => 1)").fetchone()
    assert row[:9] == ("a", 1, "t", "s", "g", 3, {"n": 1}, {}, "x")
    assert row[10] == 0
    assert db.execute("select claimed_by, available_at from tide.commands where event_id = 'a'").fetchone() == (
        "w",
        row[11],
    )
    assert claim(db) == ["b"]


def test_a_claim_follows_the_order_of_arrival(db):
    fill_many(db, 500)
    assert claim(db, 200) == [f"m{n}" for n in range(1, 201)]
    assert claim(db, 200, "other") == [f"m{n}" for n in range(201, 401)]


def test_what_is_leased_is_given_to_missing_until_the_lease_is_over(db):
    fill(db, "a", "b")
    assert claim(db, 1) == ["a"]
    assert claim(db, worker="other") == ["b"]
    assert claim(db) == []
    end_lease(db, "a")
    assert claim(db, worker="third") == ["a"]


def test_a_claim_in_the_working_transaction_is_given_back_by_a_rollback(db, database):
    fill(db, "a", "b")
    with database.connect() as worker:
        worker.execute("begin")
        assert claim(worker, 1) == ["a"]
        assert claim(db, worker="other") == ["b"]
        worker.execute("rollback")
    assert claim(db, worker="third") == ["a"]


def test_what_a_dead_session_had_claimed_and_not_committed_is_there_at_once(db, database):
    fill(db, "a")
    worker = database.connect()
    worker.execute("begin")
    assert claim(worker) == ["a"]
    with database.admin() as admin:
        admin.execute("select pg_terminate_backend(%s, 5000)", [worker.info.backend_pid])
    worker.close()
    assert claim(db, worker="other") == ["a"]


def test_many_workers_share_an_inbox_without_overlap(db, database):
    fill_many(db, 600)
    start = threading.Barrier(4)

    def work(name):
        mine = []
        with database.connect() as session:
            start.wait()
            while got := claim(session, 7, name):
                assert processed(session, *got, worker=name) == len(got)
                mine += got
        return mine

    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(work, ["w1", "w2", "w3", "w4"]))
    given = [event_id for share in shares for event_id in share]
    assert sorted(given) == sorted(f"m{n}" for n in range(1, 601))


def test_a_processed_message_is_never_given_again(db):
    fill(db, "a", "b", "c")
    assert processed(db, *claim(db, 2), worker="w") == 2
    assert processed(db, "a", "b", "missing") == 0
    assert claim(db) == ["c"]
    row = db.execute(
        "select claimed_by, available_at, processed_at > received_at from tide.commands where event_id = 'a'"
    )
    assert row.fetchone() == (None, None, True)


def test_a_direct_update_marks_also_while_claimed(db):
    fill(db, "a", "b")
    claim(db, 1)
    done = db.execute("update tide.commands set processed_at = now() where processed_at is null")
    assert done.rowcount == 2
    end_lease(db, "a", "b")
    assert claim(db) == []
    assert names(db, "commands_pending") == []


def test_a_worker_marks_only_what_it_holds(db):
    fill(db, "a")
    claim(db, worker="slow")
    end_lease(db, "a")
    assert claim(db, worker="quick") == ["a"]
    assert processed(db, "a", worker="slow") == 0
    assert failed(db, "a", worker="slow") == "not held"
    assert db.execute("select retry_count, error from tide.commands").fetchone() == (0, None)
    assert processed(db, "a", worker="quick") == 1
    assert failed(db, "a", worker="quick") == "processed"


def test_a_lease_that_is_over_counts_as_long_as_missing_else_has_the_message(db):
    fill(db, "a")
    claim(db)
    end_lease(db, "a")
    assert processed(db, "a", worker="w") == 1


def test_what_was_not_begun_can_be_given_back(db):
    fill(db, "a", "b", "c")
    claim(db, 2)
    assert call(db, "tide.inbox_release('commands', array['a', 'b', 'c'], 'other')") == 0
    assert call(db, "tide.inbox_release('commands', array['a', 'c'], 'w')") == 1
    assert claim(db, worker="other") == ["a", "c"]
    assert call(db, "max(retry_count) from tide.commands") == 0


def test_a_failed_message_comes_again_and_is_dead_at_last(db):
    fill(db, "a")
    for outcome in ("retry", "retry", "dead"):
        assert claim(db) == ["a"]
        assert failed(db, "a", worker="w") == outcome
    assert claim(db) == []
    assert failed(db, "a") == "dead"
    row = db.execute(
        "select retry_count, error, claimed_by, failed_at >= received_at from tide.commands_dlq"
    ).fetchone()
    assert row == (3, "it broke", None, True)
    assert names(db, "commands_pending") == []


def test_an_inbox_without_retries_has_one_try(db):
    call(db, "tide.inbox_create('strict', max_retries => 0)")
    fill(db, "a", inbox="strict")
    assert call(db, "tide.inbox_mark_failed('strict', 'a', 'no')") == "dead"


def test_the_pause_grows_with_the_failures(db):
    call(db, "tide.inbox_create('patient', max_retries => 1000)")
    for before, low, high in [(0, 1, 2), (1, 2, 4), (5, 32, 64), (20, 150, 300), (99, 150, 300)]:
        db.execute("delete from tide.patient")
        db.execute(
            "insert into tide.patient (event_id, retry_count) select n, %s from generate_series(1, 40) n", [before]
        )
        db.execute("select tide.inbox_mark_failed('patient', n::text, 'no') from generate_series(1, 40) n")
        least, most, kinds = db.execute("""
            select min(pause), max(pause), count(distinct pause)
              from (select extract(epoch from available_at - failed_at) as pause from tide.patient) p""").fetchone()
        assert low <= float(least) + 0.01 < most <= high + 0.01
        assert kinds > 30


def test_a_message_that_waits_for_its_retry_does_not_hold_up_the_others(db):
    fill(db, "a", "b")
    claim(db, 1)
    failed(db, "a", retry_seconds=3600)
    assert claim(db) == ["b"]
    assert names(db, "commands_pending") == ["a", "b"]
    end_lease(db, "a")
    assert claim(db) == ["a"]


def test_applications_may_count_failures_by_themselves(db):
    fill(db, "a")
    db.execute("update tide.commands set retry_count = retry_count + 1, error = 'mine'")
    assert call(db, "failed_at is not null from tide.commands")
    assert claim(db) == ["a"]
    db.execute("update tide.commands set retry_count = 3, available_at = null")
    assert claim(db) == []
    assert names(db, "commands_dlq") == ["a"]


def test_the_failure_of_an_unknown_message_is_an_error(db):
    with refused("P0002", 'inbox "commands" has no message', "'missing'"):
        failed(db, "missing")


def test_two_failures_at_once_both_count(db, database):
    fill(db, "a")
    with database.connect() as one, ThreadPoolExecutor(1) as pool:
        one.execute("begin")
        assert failed(one, "a") == "retry"
        other = pool.submit(failed, db, "a")
        one.execute("commit")
        assert other.result(10) == "retry"
    assert call(db, "retry_count from tide.commands") == 2


def test_replay_makes_what_is_done_or_dead_pending_again(db, database):
    fill(db, "done", "dead", "failed", "new")
    processed(db, "done")
    db.execute("update tide.commands set retry_count = 3 where event_id = 'dead'")
    failed(db, "failed", retry_seconds=3600)
    with database.connect() as listener:
        listener.execute("listen tide_inbox")
        assert call(db, "tide.replay_inbox_messages('commands', %s)", ["done", "dead", "failed", "new"]) == 3
        assert [n.payload for n in listener.notifies(timeout=5, stop_after=1)] == ["commands"]
    rows = db.execute("select distinct processed_at, retry_count, error, failed_at, available_at from tide.commands")
    assert rows.fetchall() == [(None, 0, None, None, None)]
    assert claim(db) == ["done", "dead", "failed", "new"]


def test_replay_tells_of_unknown_ids_and_leaves_alone_what_somebody_works_on(db):
    notices = []
    db.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    fill(db, "a", "b")
    failed(db, "a")
    assert claim(db, 1) == ["a"]
    assert call(db, "tide.replay_inbox_messages('commands', array['a', 'b', 'event-id-1'])") == 0
    assert notices == ["inbox \"commands\" has no message 'event-id-1'"]
    assert processed(db, "a", worker="w") == 1


def test_a_wrong_claim_is_refused(db):
    for arguments, said in [
        ("'commands', ''", "needs the name of a worker"),
        ("'commands', null", "needs the name of a worker"),
        ("'commands', 'w', 0", "batch_size is 0"),
        ("'commands', 'w', null", "batch_size is NULL"),
        ("'commands', 'w', 10001", "batch_size is 10001"),
        ("'commands', 'w', 1, 0", "visibility_seconds is 0"),
    ]:
        with refused("22023", said):
            db.execute(f"select tide.inbox_claim({arguments})")
    with refused("22023", "retry_seconds is -1"):
        failed(db, "a", retry_seconds=-1)


def test_an_unknown_inbox_is_named(db):
    for expression in [
        "inbox_claim('missing', 'w')",
        "inbox_mark_processed('missing', array['a'])",
        "inbox_mark_failed('missing', 'a', 'no')",
        "replay_inbox_messages('missing', array['a'])",
        "inbox_status('missing')",
        "inbox_health('missing')",
        "inbox_retain('missing')",
        "enable_inbox_ordering('missing')",
        "disable_inbox_tracking('missing')",
    ]:
        with refused("42704", 'inbox "missing" does not exist', hint="tide.inbox_create('missing')"):
            db.execute(f"select tide.{expression}")
