"""Stream tables of roles that own neither the schema tide nor the tables that they read."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from relay.stream_tables import VERSION
from tests.services.postgres import Database
from tests.sql.security.logins import logins
from tests.sql.streams.analysed import analyse_and_keep
from tests.sql.streams.streams import Connection, pipeline

SUMS = "select region, sum(amount) as amount, count(*) as orders from app.orders group by region"
JOINED = "select o.order_id, o.amount, r.name from app.orders o join app.regions r on r.region = o.region"

pytestmark = pytest.mark.each_postgres
OPTIONS = "'1s', 'AUTO', true, 'atomic', false, false, 'hot', null, 'public'"
CAPTURE = (
    "create trigger t after insert on mine referencing new table as new_rows for each statement execute function {}()"
)


class World:
    """A table of an application, a creator of stream tables, and the owner of tide, who may not read that table."""

    def __init__(self, owner: Connection, admin: Connection, creator: Connection, name: str, other: Connection) -> None:
        self.owner, self.admin, self.creator, self.name, self.other = owner, admin, creator, name, other

    def refresh(self, name: str) -> str:
        """As a worker does; then the table equals the query as its creator sees it."""
        line = pipeline(self.owner, name)
        prepare = "select tide.stream_prepare(%s, %s)"
        if self.owner.execute(prepare, [line, VERSION]).fetchall() == [(True,)]:
            analyse_and_keep(self.owner, name)
            self.owner.execute(prepare, [line, VERSION])
        self.owner.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        try:
            with self.owner.transaction():
                [(action,)] = self.owner.execute("select action from tide.stream_refresh(%s)", [line]).fetchall()
        finally:
            self.owner.isolation_level = None
        return str(action)

    def equals(self, name: str, query: str) -> bool:
        differ = f"(({query}) except all select * from {name}) union all (select * from {name} except all ({query}))"
        return self.creator.execute(differ).fetchall() == []  # type: ignore[arg-type]


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    with logins(database) as make, _open(database, make) as found:
        yield found


@contextmanager
def _open(database, make):
    app, app_url = make()
    creator, creator_url = make("grant_streams")
    other, other_url = make("grant_streams")
    with (
        database.connect() as owner,
        database.admin() as admin,
        psycopg.connect(app_url, autocommit=True) as application,
        psycopg.connect(creator_url, autocommit=True) as mine,
        psycopg.connect(other_url, autocommit=True) as theirs,
    ):
        admin.execute(f"""
            create schema app authorization {app};
            create schema {creator} authorization {creator};
            create schema {other} authorization {other};
            grant usage on schema app to {creator}, {other}, tide_owner;
            grant usage on schema {creator}, {other} to tide_owner;
        """)
        application.execute(f"""
            create table app.orders (order_id int primary key, region text, amount numeric, secret text);
            create table app.regions (region text primary key, name text);
            insert into app.orders values (1, 'north', 10, 'x'), (2, 'south', 20, 'y');
            insert into app.regions values ('north', 'North'), ('south', 'South');
            grant select, trigger on app.orders, app.regions to {creator};
            grant select on app.orders to {other};
        """)
        mine.execute(f"set search_path = {creator}")
        theirs.execute(f"set search_path = {other}")
        found = World(owner, admin, mine, creator, theirs)
        found.application = application  # type: ignore[attr-defined]
        found.other_name = other  # type: ignore[attr-defined]
        found.app = app  # type: ignore[attr-defined]
        try:
            yield found
        finally:
            admin.execute(f"drop schema {creator}, {other}, app, tide_stream, tide_run cascade")


def test_a_role_that_may_read_and_trigger_has_its_queries_followed_by_changes(world):
    for name, query in (("sums", SUMS), ("joined", JOINED)):
        world.creator.execute("select tide.create_stream_table(%s, %s, refresh_mode => 'DIFFERENTIAL')", [name, query])
        assert world.refresh(name) == "FULL" and world.equals(name, query)
    assert world.refresh("sums") == "NO_DATA"
    # Where more columns are captured, triggers are made again: no one but their owner locks these tables.
    world.creator.execute("select tide.create_stream_table('secrets', 'select order_id, secret from app.orders')")
    assert [world.refresh(name) for name in ("secrets", "sums", "joined")] == ["FULL"] * 3
    for statement in (
        "insert into app.orders values (3, 'north', 5, 'z')",
        "update app.orders set amount = 7 where order_id = 1",
        "delete from app.orders where order_id = 2",
        "update app.regions set name = 'N' where region = 'north'",
    ):
        world.application.execute(statement)
        for name, query in (("sums", SUMS), ("joined", JOINED)):
            if behind_of(world, name):
                assert world.refresh(name) == "DIFFERENTIAL", why(world)
            assert world.equals(name, query)
    world.creator.execute(
        "select tide.alter_stream_table('sums', query => %s)", [f"{SUMS.replace('count(*)', '2 * count(*)')}"]
    )
    assert world.refresh("sums") == "FULL"
    assert world.equals("sums", SUMS.replace("count(*)", "2 * count(*)"))
    # As the owner of tide it reads nothing, and the creator sees nothing of other stream tables.
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        world.owner.execute("select * from app.orders")
    world.creator.execute("select tide.drop_stream_table('sums')")
    world.creator.execute("select tide.drop_stream_table('joined')")
    world.creator.execute("select tide.drop_stream_table('secrets')")
    left = world.admin.execute("select count(*) from pg_proc where pronamespace = 'tide_run'::regnamespace").fetchall()
    assert left == [(0,)]


def test_refreshes_have_the_rights_of_the_creator_and_no_others(world):
    # A function tells as whom it runs, whichever way leads to it: the query, a default, a trigger, an index.
    world.creator.execute("""
        create table told (who text);
        create function who(text) returns text language plpgsql as
            $$ begin insert into told values (current_user); return $1 || current_user; end $$;
        create function tell() returns trigger language plpgsql as
            $$ begin insert into told values (current_user); return null; end $$;
        create function plain(text) returns text language plpgsql immutable as
            $$ begin perform who($1); return $1; end $$;
    """)
    world.creator.execute("select tide.create_stream_table('named', 'select who(region) as region from app.orders')")
    world.creator.execute("select tide.create_stream_table('sums', %s)", [SUMS])
    world.creator.execute("""
        create trigger tell after insert or update or delete on sums for each statement execute function tell();
        create index on sums (plain(region));
    """)
    for number in range(3, 6):
        world.application.execute("insert into app.orders values (%s, 'north', 5, 'z')", [number])
        for name in ("named", "sums"):
            world.refresh(name)
    assert world.creator.execute("select count(*) from named").fetchall() == [(5,)]
    assert world.creator.execute("select distinct who from told").fetchall() == [(world.name,)]


def test_what_the_creator_may_not_read_is_not_shown_by_a_refresh(world):
    view = "create view app.some as select order_id, region from app.orders where region = 'north'"
    world.application.execute(f"{view}; grant select on app.some to {world.other_name}")
    world.application.execute(f"revoke select on app.orders from {world.other_name}")
    world.application.execute(f"grant trigger on app.orders to {world.other_name}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        world.other.execute("select tide.create_stream_table('stolen', 'select secret from app.orders')")
    # Through a view of the owner it reads what the view shows, and no change buffer.
    world.other.execute("select tide.create_stream_table('seen', 'select * from app.some')")
    for number in range(3, 5):
        world.application.execute(
            "insert into app.orders values (%s, 'south', 5, 'z'), (%s, 'north', 5, 'z')", [number, number + 10]
        )
        assert world.refresh("seen") == "FULL"
    assert world.other.execute("select count(*) from seen").fetchall() == [(3,)]
    assert "may not read app.orders itself" in str(
        world.owner.execute("select why_full from tide.stream_tables()").fetchall()
    )


def test_rights_that_are_revoked_later_fail_the_refresh_and_the_rows_stay(world):
    world.creator.execute("select tide.create_stream_table('sums', %s)", [SUMS])
    world.refresh("sums")
    world.application.execute("insert into app.orders values (3, 'north', 5, 'z')")
    world.application.execute(f"revoke select on app.orders from {world.name}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table orders"):
        world.refresh("sums")
    assert world.creator.execute("select count(*) from sums").fetchall() == [(2,)]
    world.application.execute(f"grant select on app.orders to {world.name}")
    world.refresh("sums")
    assert world.equals("sums", SUMS)
    # The table goes to another role, and what runs its query does not.
    world.admin.execute(f"alter table {world.name}.sums owner to {world.other_name}")
    world.application.execute("insert into app.orders values (4, 'north', 5, 'z')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="belongs to"):
        world.refresh("sums")
    world.admin.execute(f"alter table {world.name}.sums owner to {world.name}")
    # What runs the query is changed, or dropped.
    [(runner,)] = world.admin.execute(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'tide_run'::regnamespace"
    ).fetchall()
    world.creator.execute(f"alter function {runner} reset search_path")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="was changed"):
        world.refresh("sums")
    world.creator.execute(f"drop function {runner}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="is missing") as told:
        world.refresh("sums")
    assert "give the query again" in str(told.value.diag.message_hint)
    world.creator.execute("select tide.alter_stream_table('sums', query => %s)", [SUMS])
    world.refresh("sums")
    assert world.equals("sums", SUMS)


def test_no_one_gives_a_query_for_another_role(world):
    world.creator.execute("select tide.create_stream_table('sums', %s)", [SUMS])
    world.refresh("sums")
    relation, text = (
        f"{world.name}.sums",
        "select region, amount, orders from (select ''::text, 1::numeric, 1::bigint) x (region, amount, orders)",
    )
    for call in (
        "select tide.alter_stream_table(%s, query => 'select 1')",
        "select tide.stream_reenter(%s, tide.stream_make_runner('select 1'), 'select 1', 'select 1', 'public')",
        "select tide.drop_stream_table(%s)",
        "select tide.alter_stream_table(%s, tier => 'cold')",
        "select tide.resume_stream_table(%s)",
        "select tide.refresh_stream_table(%s)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            world.other.execute(call, [relation])  # type: ignore[arg-type]
    # A function of another that bears the name: for a table that is not one yet.
    world.creator.execute("create table plain (region text, amount numeric, orders bigint)")
    [(oid,)] = world.admin.execute("select %s::regclass::oid", [f"{world.name}.plain"]).fetchall()
    world.admin.execute(f"grant usage on schema {world.name} to {world.other_name}")
    [(runner,)] = world.other.execute("select tide.stream_make_runner(%s)", [text]).fetchall()
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="belongs to"):
        world.other.execute(
            f"select tide.stream_enter(%s::oid::regclass, %s, %s, %s, {OPTIONS})",
            [oid, runner, text, text],
        )
    # What runs queries is called by the owner of tide alone, and no one may make a trigger of the capture.
    [(own,)] = world.creator.execute("select tide.stream_runner(%s)", [relation]).fetchall()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        world.other.execute(f"select tide_run.{own}('select 1', null)")
    [(capture,)] = world.admin.execute(
        "select oid::regproc::text from pg_proc where proname ~ '^c_[0-9_]+insert$' limit 1").fetchall()  # fmt: skip
    for role in (world.other, world.creator):
        role.execute("create table if not exists mine (order_id int, region text, amount numeric)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            role.execute(CAPTURE.format(capture))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            role.execute("create table tide_stream.planted (a int)")


def test_types_that_run_code_are_not_taken_and_superusers_are_told_to_become_the_creator(world):
    world.creator.execute("""
        create function evil(text) returns boolean language plpgsql as
            $$ begin if current_user = 'tide_owner' then raise exception 'caught'; end if; return true; end $$;
        create domain checked as text check (evil(value));
        create table mine (id int primary key, a checked);
        create type mood as enum ('good');
    """)
    for query in ("select id, a from mine", "select id, 'good'::mood as a from mine"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="not of PostgreSQL itself") as told:
            world.creator.execute("select tide.create_stream_table('bad', %s)", [query])
        assert "Cast it" in str(told.value.diag.message_hint)
    # Where rows wait, a column that is captured too would be filled: with a value of its type.
    world.creator.execute("select tide.create_stream_table('plain', 'select id from mine', null, 'DIFFERENTIAL')")
    world.refresh("plain")
    world.creator.execute("insert into mine values (1)")
    world.creator.execute("select tide.create_stream_table('good', 'select id, a::text as a from mine')")
    assert world.refresh("good") == "FULL" and world.refresh("plain") == "DIFFERENTIAL"
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="which is a superuser"):
        world.admin.execute("select tide.create_stream_table('public.mine', 'select 1 as one')")
    # Not of tables on which no one of the two may make triggers.
    world.application.execute(f"revoke trigger on app.orders from {world.name}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="may not create triggers on app"):
        world.creator.execute("select tide.create_stream_table('late', %s)", [SUMS])


def test_a_table_that_its_creator_drops_or_gives_away_runs_nothing_as_the_owner_of_tide(world):
    world.creator.execute("""
        create table told (who text);
        create function who(text) returns text language plpgsql as
            $$ begin insert into told values (current_user); return $1; end $$;
    """)
    for name in ("dropped", "given"):
        world.creator.execute(
            "select tide.create_stream_table(%s, 'select who(region) as region from app.orders')", [name]
        )
    lines = [pipeline(world.owner, name) for name in ("dropped", "given")]
    world.creator.execute("drop table dropped")
    world.admin.execute(f"alter table {world.name}.given owner to tide_owner")
    for line, reason in zip(lines, ("was dropped", "made by another role"), strict=True):
        world.owner.execute("begin isolation level repeatable read")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=reason):
            world.owner.execute("select tide.stream_refresh(%s)", [line])
        world.owner.execute("rollback")
    assert world.creator.execute("select * from told").fetchall() == []
    for line in lines:
        [(name,)] = world.owner.execute("select name from tide.stream where pipeline = %s", [line]).fetchall()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            world.other.execute("select tide.drop_stream_table(%s)", [name])
        world.owner.execute("select tide.drop_stream_table(%s)", [name])


def test_no_table_of_tide_itself_is_captured_for_a_creator(world):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        world.creator.execute("select tide.create_stream_table('messages', 'select * from tide.message')")
    world.creator.execute("create table messages (id bigint)")
    text = "select message.id from tide.message"
    [(runner,)] = world.creator.execute("select tide.stream_make_runner(%s)", [text]).fetchall()
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="may not create triggers on tide"):
        world.creator.execute(
            f"select tide.stream_enter('messages', %s, %s, %s, {OPTIONS})",
            [runner, text, text],
        )


def test_a_role_that_cannot_log_in_owns_them_and_they_are_published_and_grouped_apart(world):
    group = f"{world.name}_group"
    world.admin.execute(f"create role {group} nologin; grant {group} to {world.name}")
    try:
        world.owner.execute("select tide.grant_streams(%s)", [group])
        world.application.execute(
            f"grant usage on schema app to {group}; grant select, trigger on app.orders to {group}"
        )
        world.admin.execute(f"grant usage, create on schema {world.name} to {group}")
        world.creator.execute(f"set role {group}")
        world.creator.execute(
            "select tide.create_stream_table('sums', %s, null, 'DIFFERENTIAL', refresh_group => 'books')", [SUMS]
        )
        world.creator.execute("reset role")
        world.creator.execute(
            "select tide.create_stream_table('counts', 'select 1 as n from app.orders', refresh_group => 'books')"
        )
        assert world.owner.execute("select * from tide.diamond_groups()").fetchall() == []
        world.owner.execute("select tide.stream_outbox_enable('sums', 'changes')")
        assert world.refresh("sums") == "FULL"
        world.application.execute("insert into app.orders values (3, 'north', 5, 'z')")
        assert world.refresh("sums") == "DIFFERENTIAL"
        assert world.owner.execute("select count(*) from tide.message").fetchall() == [(2,)]
        # A member may change what belongs to the group.
        world.creator.execute("select tide.alter_stream_table('sums', tier => 'cold')")
        world.creator.execute("select tide.drop_stream_table('sums')")
    finally:
        world.admin.execute(f"drop owned by {group} cascade; drop role {group}")


def behind_of(world, name):
    return world.owner.execute(
        "select behind from tide.stream_tables() where name like '%%.' || %s", [name]
    ).fetchall()[0][0]


def why(world):
    return world.owner.execute("select reason from tide.stream_history order by refresh_id desc limit 1").fetchall()
