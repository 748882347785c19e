"""Dead messages: counted cheaply, listed in pages, and replayed, by operators and by who may work on the inbox."""

import psycopg
import pytest

from tests.sql.inbox.inboxes import call, claim, failed, fill, processed
from tests.sql.security.logins import logins
from tests.sql.support import refused

LISTED = "select event_id, failed_at, available_at, processed_at, inbox_seq from tide.inbox_messages"


@pytest.fixture
def db(database):
    with database.connect() as connection:
        call(connection, "tide.inbox_create('commands')")
        yield connection


def dead(db, inbox="commands"):
    """The number of `commands`, and of the others by name."""
    found = {name: count for name, count, _ in db.execute("select * from tide.inbox_dead_numbers()")}
    return found[inbox]


def kill(db, *event_ids):
    """Each dies after the one before."""
    for event_id in event_ids:
        db.execute("update tide.commands set retry_count = 3 where event_id = %s", [event_id])


def pages(db, state, time, size=2):
    """All pages of a state, each begun behind the last row of the one before."""
    found, at, seq = [], None, None
    while True:
        page = db.execute(
            f"{LISTED}('commands', %s, before_at => %s, before_seq => %s, max_rows => %s)", [state, at, seq, size]
        ).fetchall()
        found.append([row[0] for row in page])
        if len(page) < size:
            return found
        at, seq = page[-1][time], page[-1][4]


def test_dead_messages_are_counted_with_the_time_of_the_oldest(db):
    call(db, "tide.inbox_create('none')")
    assert dead(db) == dead(db, "none") == 0
    fill(db, *"abcd")
    kill(db, "b", "a")
    [(_, number, oldest)] = db.execute("select * from tide.inbox_dead_numbers(array['commands'])").fetchall()
    assert (number, oldest) == (2, call(db, "failed_at from tide.commands where event_id = 'b'"))
    assert dead(db, "none") == 0
    [(second, _, _)] = db.execute("select * from tide.inbox_dead_numbers(after_name => 'commands', max_inboxes => 1)")
    assert second == "none"


def test_the_number_costs_what_is_dead_and_not_what_the_inbox_holds(db):
    """Rows that are read, by PostgreSQL's own count of them."""
    db.execute(
        "insert into tide.commands (event_id, processed_at) select 'd' || n, now() from generate_series(1, 2000) n"
    )
    db.execute("insert into tide.commands (event_id) select 'p' || n from generate_series(1, 2000) n")
    fill(db, *"abc")
    kill(db, *"abc")
    read = "seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables where relname = 'commands'"
    with db.transaction():
        assert dead(db) == 3
        assert call(db, read) < 20
    with db.transaction():
        assert len(db.execute("select * from tide.inbox_messages('commands', max_rows => 2)").fetchall()) == 2
        assert call(db, read) < 20


def test_beyond_ten_thousand_the_number_is_an_estimate(db):
    db.execute("insert into tide.commands (event_id, retry_count) select 'd' || n, 3 from generate_series(1, 12000) n")
    assert dead(db) == 10_000
    db.execute("vacuum analyze tide.commands")
    assert dead(db) == 12_000


def test_an_inbox_that_is_locked_or_gone_hides_no_other(database, db):
    for name in ("gone", "other"):
        call(db, "tide.inbox_create(%s)", name)
        fill(db, "a", inbox=name)
        db.execute(f"update tide.{name} set retry_count = 3")
    db.execute("drop table tide.gone cascade")
    with database.connect(autocommit=False) as owner:
        owner.execute("lock table tide.other in access exclusive mode; reindex index tide.other_tide_dead")
        fill(db, "a")
        kill(db, "a")
        assert [dead(db, name) for name in ("commands", "gone", "other")] == [1, None, None]
    assert dead(db, "other") == 1
    with refused("42704", 'inbox "nope" does not exist'):
        db.execute("select * from tide.inbox_dead_numbers(array['gone', 'nope'])")


def test_each_state_is_listed_newest_first_and_page_by_page(db):
    fill(db, "new1", "new2", "new3", *"abcde", "held", "wait1", "wait2", "done1", "done2", "done3")
    kill(db, *"caebd")
    db.execute("update tide.commands set failed_at = null where event_id in ('a', 'e')")
    for number in (1, 2, 3):
        processed(db, f"done{number}")
    for number, message in enumerate(("held", "wait1", "wait2"), 1):
        db.execute(
            "update tide.commands set available_at = now() + %s * interval '1 h', claimed_by = %s where event_id = %s",
            [number, "w" if message == "held" else None, message],
        )
    assert pages(db, "dead", 1) == [["e", "a"], ["d", "b"], ["c"]]
    assert pages(db, "processed", 3) == [["done3", "done2"], ["done1"]]
    assert pages(db, "pending", 2) == [["new3", "new2"], ["new1", "wait2"], ["wait1", "held"], []]
    assert pages(db, "claimed", 2) == [["held"]]
    assert pages(db, "retrying", 2) == [["wait2", "wait1"], []]
    found = db.execute(
        "select event_id, state from tide.inbox_messages('commands', event_ids => array['a', 'held', 'x'])"
    )
    assert sorted(found.fetchall()) == [("a", "dead"), ("held", "claimed")]


def test_a_time_chooses_among_the_dead_and_the_processed(db):
    fill(db, *"abc")
    kill(db, *"abc")
    moment = call(db, "failed_at from tide.commands where event_id = 'b'")
    listed = "event_id from tide.inbox_messages('commands', since => %s)"
    assert [row[0] for row in db.execute(f"select {listed}", [moment])] == ["c", "b"]
    assert call(db, "tide.inbox_replay_dead('commands', until => %s)", moment) == 1
    assert claim(db) == ["a"]
    with refused("22023", "since and until are for dead and processed messages"):
        db.execute("select tide.inbox_messages('commands', 'pending', since => now())")
    with refused("22023", "state 'sad' of a message is not known"):
        db.execute("select tide.inbox_messages('commands', 'sad')")


def test_dead_messages_are_replayed_the_oldest_first_and_so_many(db):
    fill(db, *"abcd", "held")
    kill(db, "held", *"cbad")
    db.execute(
        "update tide.commands set claimed_by = 'w', available_at = now() + interval '1 h' where event_id = 'held'"
    )
    assert call(db, "tide.inbox_replay_dead('commands', max_messages => 2)") == 2
    assert sorted(claim(db)) == ["b", "c"]
    assert call(db, "tide.inbox_replay_dead('commands')") == 2
    assert call(db, "tide.inbox_replay_dead('commands')") == 0
    assert dead(db) == 1


def test_named_messages_are_replayed_all_or_none(db):
    fill(db, *"abc")
    kill(db, "a")
    processed(db, "b")
    with refused("P0002", "inbox \"commands\" has no message 'x'", hint="Nothing was changed"):
        call(db, "tide.inbox_replay('commands', array['a', 'x'])")
    assert dead(db) == 1
    assert call(db, "tide.inbox_replay('commands', array['a', 'b', 'c'])") == 2
    assert sorted(claim(db)) == ["a", "b", "c"]
    assert failed(db, "a") == "retry"


READ, WRITTEN = "tide.inbox_messages(%s)", ("tide.inbox_replay(%s, array['a'])", "tide.inbox_replay_dead(%s)")


@pytest.mark.each_postgres
def test_operators_see_and_replay_every_inbox_and_others_theirs(database, db):
    call(db, "tide.inbox_create('secrets'), tide.inbox_create('aside')")
    with logins(database) as make:
        (worker, worker_url), (looker, looker_url) = make(), make("grant_consumer")
        (_, operator_url), (_, reader_url), (_, relay_url) = (
            make("grant_operator"),
            make("grant_reader"),
            make("grant_relay"),
        )
        call(db, "tide.inbox_grant('commands', %s)", worker)
        db.execute(f"grant select on tide.commands to {looker}")
        for inbox in ("commands", "secrets"):
            fill(db, "a", inbox=inbox)
        allowed = {
            operator_url: {"commands": (READ, *WRITTEN), "secrets": (READ, *WRITTEN)},
            worker_url: {"commands": (READ, *WRITTEN), "secrets": ()},
            looker_url: {"commands": (READ,), "secrets": ()},
        }
        for url, by_inbox in allowed.items():
            with psycopg.connect(url, autocommit=True) as role:
                for inbox, calls in by_inbox.items():
                    for expression in (READ, *WRITTEN):
                        if expression in calls:
                            role.execute(f"select {expression}", [inbox])
                            continue
                        with refused("42501", f'messages of inbox "{inbox}"'):
                            role.execute(f"select {expression}", [inbox])
        with psycopg.connect(worker_url, autocommit=True) as role:
            page = role.execute("select name from tide.inbox_dead_numbers(max_inboxes => 1)").fetchall()
            assert page == [("commands",)], "a page is of those that it may see"
        for url in (reader_url, relay_url):
            with psycopg.connect(url, autocommit=True) as role:
                assert len(role.execute("select * from tide.inbox_dead_numbers()").fetchall()) == 3
                with refused("42501", "permission denied for function inbox_messages"):
                    role.execute(f"select {READ}", ["commands"])
