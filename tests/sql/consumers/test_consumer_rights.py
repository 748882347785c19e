"""Who may consume which group, and how many consumers a group can have."""

from contextlib import contextmanager

import psycopg
import pytest

from tests.sql.consumers.consumers import commit, poll
from tests.sql.security.logins import logins
from tests.sql.support import make_outbox, publish_many, refused

pytestmark = pytest.mark.each_postgres

CALLS = {
    "poll": "select * from tide.poll_outbox(%s, 'c')",
    "commit": "select tide.commit_offset(%s, 'c', 1)",
    "extend": "select tide.extend_lease(%s, 'c')",
    "heartbeat": "select tide.consumer_heartbeat(%s, 'c')",
    "lag": "select * from tide.consumer_lag(%s)",
    "status": "select * from tide.consumer_status(%s)",
    "trickle_poll": "select * from pgtrickle.poll_outbox(%s, 'c')",
}


@pytest.fixture
def db(database):
    with database.connect() as connection:
        make_outbox(connection)
        connection.execute("select tide.create_consumer_group(g, 'orders') from unnest(array['mine', 'theirs']) g")
        publish_many(connection, 10)
        yield connection


@pytest.fixture
def login(database):
    with logins(database) as make:

        @contextmanager
        def session(*grants, **options):
            name, url = make(*grants, **options)
            with psycopg.connect(url, autocommit=True) as connection:
                yield name, connection

        yield session


def test_a_consumer_of_one_group_consumes_that_one_only(db, login):
    with login() as (name, consumer), login("grant_consumer") as (_, everywhere), login("grant_reader") as (_, reader):
        assert len(poll(everywhere, "c", 2, group="theirs")) == 2
        db.execute("select tide.consumer_group_grant('mine', %s)", [name])
        ids = poll(consumer, "c", 2, group="mine")
        assert commit(consumer, "c", ids[-1], group="mine") == ids[-1]
        for call in CALLS.values():
            with refused("42501", 'may not consume group "theirs"', hint="consumer_group_grant"):
                consumer.execute(call, ["theirs"])
        groups = "select consumer_group from tide.consumer_lag()"
        assert consumer.execute(groups).fetchall() == [("mine",)]
        assert reader.execute(groups).fetchall() == [("mine",), ("theirs",)]
        # Who may consume every group still may; a group made later is guarded too.
        assert len(poll(everywhere, "c", 2, group="theirs")) == 2
        db.execute("select tide.create_consumer_group('later', 'orders')")
        with refused("42501", "later"):
            poll(consumer, "c", group="later")
        with refused("42501"):
            consumer.execute("select tide.seek_offset('theirs', 'c', 0)")
        db.execute("select tide.consumer_group_revoke('mine', %s)", [name])
        with refused("42501", "mine"):
            poll(consumer, "c", group="mine")


def test_the_right_to_a_group_comes_with_membership_and_goes_with_the_group(db, login):
    with login() as (team, _), login(member_of=(team,)) as (_, member), login("grant_operator") as (_, operator):
        db.execute("select tide.consumer_group_grant('mine', %s)", [team])
        assert len(poll(member, "c", 2, group="mine")) == 2
        operator.execute("select tide.seek_offset('mine', 'someone', 0)")
        db.execute("select tide.drop_consumer_group('mine')")
        assert db.execute("select to_regprocedure('tide.consume_from_1()')").fetchone() == (None,)
        db.execute("select tide.create_consumer_group('mine', 'orders')")
        with refused("42501", "mine"):
            poll(member, "c", group="mine")
        with refused("42704"):
            db.execute("select tide.consumer_group_grant('none', %s)", [team])


def test_to_read_all_data_is_no_right_to_consume(db, login):
    with login() as (name, _), login(member_of=("pg_read_all_data",)) as (reader, consumer):
        db.execute("select tide.consumer_group_grant('mine', %s)", [name])
        db.execute("select tide.consumer_group_grant('theirs', %s)", [reader])
        assert len(poll(consumer, "c", 2, group="theirs")) == 2
        with refused("42501", "mine"):
            poll(consumer, "c", group="mine")


@pytest.mark.parametrize("call", ["poll", "heartbeat"])
def test_a_group_has_a_limit_of_consumers_and_forgets_the_silent_ones_first(db, call):
    db.execute("select tide.setting_set('consumers_per_group', '3')")

    def consume(name):
        db.execute(CALLS[call].replace("'c'", "%s"), ["mine", name])

    for name in "abc":
        consume(name)
    with refused("53400", 'group "mine" has 3 consumers', hint="consumers_per_group"):
        consume("d")
    consume("a")
    db.execute("update tide.consumer set seen_at = now() - interval '2 minutes' where name in ('a', 'b')")
    consume("d")
    left = {
        name for (name,) in db.execute("select consumer from tide.consumer_status('mine') where seen_at is not null")
    }
    # The first poll has leased all messages to a.
    assert left == ({"a", "c", "d"} if call == "poll" else {"c", "d"})
    db.execute("select tide.setting_set('consumers_per_group', '0')")
    for number in range(5):
        consume(f"more {number}")
