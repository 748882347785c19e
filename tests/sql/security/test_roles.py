"""Two roles: a publisher can publish and nothing else; a relay can do its work and nothing else."""

import re
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from relay.database import migrate
from relay.drains.fence import end
from relay.drains.lease import DrainResult
from relay.drains.outbox import Reader, Settlement
from relay.models import Drain, Failure
from relay.settings import Settings
from relay.sql import query, statements
from scheduler.session import Session
from tests.scheduler.owning import let_go, own, spec
from tests.sql.support import (
    LEASE_MS,
    begin,
    make_outbox,
    make_pipeline,
    publish,
    publish_many,
    reader_of,
    relay_session,
    run,
)

pytestmark = pytest.mark.each_postgres

EXPLAINED = re.compile(r"^(select|with|insert|update|delete)\b", re.MULTILINE)
# Statements of people on duty, which an operator may run.
OPERATORS = re.compile(
    r"dead_letter_|history$|replay_(ask|cancel|list|preview|span)|pipeline_(enable|disable|list)|status_"
    r"|^inbox_(list|dead_numbers|show_status|messages?|replay)|^outbox_(list|show)"
    r"|^job_(list|show|attempts|cancel|replay|purge|stats|workers|unknown_handlers|schedule_(list|delete|enable|disable))"
    r"|^job_queue_(names|list|set|pause|resume)|^stream_(tables|ask|pause|resume|wait|wait_limits|show|explain|strategies|history)$|^snapshots$"
)
# Those that publish, configure or migrate, and those that work inboxes off, are for others still.
OTHERS = re.compile(
    r"publish|outbox_limit|renew_identity|pipeline_(set|enable|disable|delete)|outbox_create|inbox_(create|claim|mark|release|messages?$|replay)|source_"
    r"|migration_(?!exists|applied|files)|dead_letter_|history$|replay_(ask|cancel|list|preview|span)|skip_|raise_|table_route$"
    r"|^job_(enqueue|is_new|show|attempts|cancel|replay|purge|queue_(create|set|pause|resume|drop)|schedule_(delete|enable|disable)|import_)"
    r"|^stream_(create|replace|alter|ask|pause|resume|show|explain|strategies|history|drop|forget|wait|wait_limits|outbox_enable|outbox_disable)$|^snapshot|^demo_"
)
DENIED = psycopg.errors.InsufficientPrivilege


@pytest.fixture
def role(database):
    """Makes a role that may log in, and its URL: `role("grant_publisher")`. Roles go with the test."""
    made = []

    def make(*grants):
        name = f"role_{uuid4().hex[:8]}"
        with database.admin() as admin:
            admin.execute(sql.SQL("create role {} login password 'secret'").format(sql.Identifier(name)))
        made.append(name)
        with database.connect() as owner:
            for grant in grants:
                owner.execute(f"select tide.{grant}(%s)", [name])
        return database.server.process.url_of(database.name, name, "secret")

    yield make
    with database.admin() as admin:
        for name in made:
            admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [name])
            admin.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(name)))


def tide_functions(connection):
    """(signature, call with nulls) of every function of the schema."""
    return connection.execute("""
        select p.oid::regprocedure::text,
               format('select %s(%s)', p.oid::regproc,
                      (select string_agg('null::' || format_type(t, null), ', ')
                         from unnest(p.proargtypes) t))
          from pg_proc p where p.pronamespace = 'tide'::regnamespace order by 1""").fetchall()


def test_the_owner_is_no_superuser(database):
    with database.connect() as owner:
        row = owner.execute(
            "select rolsuper, rolcreaterole, rolreplication, rolbypassrls from pg_roles where rolname = current_user"
        )
        assert row.fetchone() == (False, False, False, False)


def test_a_publisher_publishes(database, role):
    make_pipeline(database)
    with psycopg.connect(role("grant_publisher"), autocommit=True) as publisher:
        assert publish(publisher) == 1
        assert publish_many(publisher, 3) == [2, 3, 4]
    with reader_of(database) as reader:
        assert [message.id for message in reader.read(0).messages] == [1, 2, 3, 4]


def test_a_publisher_can_call_nothing_else(database, role):
    with psycopg.connect(role("grant_publisher"), autocommit=True) as publisher, database.connect() as owner:
        allowed = []
        for signature, call in tide_functions(owner):
            try:
                publisher.execute(call)
            except DENIED:
                continue
            except psycopg.Error:
                pass
            allowed.append(signature)
    assert allowed == [
        "tide.outbox_ask(integer)",
        "tide.outbox_fits(integer,jsonb,jsonb,text)",
        "tide.outbox_limit(text)",
        "tide.outbox_more(integer,integer,text,regclass,regclass,bigint)",
        "tide.outbox_publish(text,jsonb,jsonb,text)",
        "tide.outbox_publish_many(text,jsonb[],text[],jsonb[])",
        "tide.publish_anywhere()",
    ]


@pytest.mark.parametrize("action", ["select", "insert", "update", "delete", "truncate"])
def test_a_publisher_can_touch_no_table(database, role, action):
    with database.connect() as owner:
        make_outbox(owner)
        tables = owner.execute("""
            select oid::regclass::text from pg_class
             where relnamespace = 'tide'::regnamespace and relkind in ('r', 'p')""").fetchall()
    with psycopg.connect(role("grant_publisher"), autocommit=True) as publisher:
        for (table,) in tables:
            granted = publisher.execute("select has_table_privilege(%s, %s)", [table, action]).fetchone()[0]
            assert not granted, table


def test_a_stranger_can_do_nothing(database, role):
    with psycopg.connect(role(), autocommit=True) as stranger, database.connect() as owner:
        for signature, call in tide_functions(owner):
            with pytest.raises(DENIED):
                stranger.execute(call)
            granted = owner.execute("select has_function_privilege('public', %s::regprocedure, 'execute')", [signature])
            assert granted.fetchone() == (False,), signature


def test_names_of_roles_are_quoted(database):
    with database.connect() as owner, database.admin() as admin:
        admin.execute('create role "Odd; name"')
        try:
            owner.execute("select tide.grant_publisher('Odd; name'), tide.grant_relay('Odd; name')")
        finally:
            admin.execute('drop owned by "Odd; name"; drop role "Odd; name"')


def test_a_relay_runs_drains(database, role):
    make_pipeline(database)
    url = role("grant_relay")
    with database.connect() as owner:
        publish_many(owner, 4)
    with relay_session(url) as session:
        session.execute(query("worker_session"))
        migrate.require_current(session)
        fenced = begin(session)
        reader = Reader(fenced, 10)
        batch = reader.read(0)
        assert len(batch.messages) == 4
        reader.read(4, Settlement(4, 3, ((2, Failure(1, True, "rejected", "no")),)), "disarm")
        reader.read(4, None, "arm")
        end(session, fenced.lease.drain, DrainResult("idle"))


def test_a_relay_runs_a_scheduler(database, role):
    make_pipeline(database, partition_size=1000)
    with database.connect() as owner:
        publish_many(owner, 1500)
        publisher = database.connect()
        publisher.execute("begin")
        publish(publisher)
        publisher.close()
    session = Session(Settings(postgres_url=role("grant_relay")))
    try:
        session.heartbeat()
        assert session.evict(10) == []
        assert session.schedulers_alive() == 1
        assert len(session.pipeline_buckets()) == 1
        [row] = session.pipelines(["p"])
        assert session.pipeline_revisions([row["bucket"]]) == [("p", row["bucket"], row["revision"], False)]
        session.mark_invalid("p", row["revision"], "bad")
        session.mark_invalid("p", row["revision"], None)
        assert session.unowned(["p"]) == ["p"]
        assert own(session, "p") == ["p"]
        [raised] = session.raise_epochs([spec("p")])
        session.silence(Drain("p", raised.epoch, 1, LEASE_MS))
        assert session.behind(["p"]) == {"p"}
        assert [row.name for row in session.lag(["p"])] == ["p"]
        assert session.outbox_page(0, 10).needing == session.outboxes_needing(["orders"]) == ["orders"]
        session.extend_outbox("orders")
        let_go(session, "p")
    finally:
        session.close()


def test_a_relay_can_neither_publish_nor_change_what_is_configured(database, role):
    make_pipeline(database)
    with psycopg.connect(role("grant_relay"), autocommit=True) as relay:
        for statement in (
            "select tide.outbox_publish('orders', '1')",
            "select tide.outbox_create('other')",
            "select tide.outbox_drop('orders')",
            "select tide.relay_set_outbox('p', 'orders', '{}')",
            "select tide.relay_delete('p')",
            "update tide.pipeline set config = '{}'",
            "update tide.outbox set enabled = false",
            "delete from tide.message",
            "insert into tide.migration values (99, 'x')",
            "create table tide.mine ()",
        ):
            with pytest.raises(DENIED):
                relay.execute(statement)


def test_every_statement_of_the_relay_is_prepared_as_its_role(database, role):
    """Planning checks that every name exists; rights are checked when a statement starts, which EXPLAIN does."""
    make_pipeline(database)
    with relay_session(role("grant_relay")) as session:
        for name, text in statements().items():
            if EXPLAINED.search(text) and not OTHERS.match(name):
                explained = "explain " + text.replace(")b::", ")s::")
                session.execute(explained, _Nulls() if "%(" in text else None)


def test_every_statement_of_people_on_duty_is_prepared_as_an_operator(database, role):
    make_pipeline(database)
    with relay_session(role("grant_operator")) as session:
        names = [name for name, text in statements().items() if OPERATORS.match(name) and EXPLAINED.search(text)]
        assert len(names) > 10
        for name in names:
            explained = "explain " + query(name).replace(")b::", ")s::")
            session.execute(explained, _Nulls() if "%(" in query(name) else None)


class _Nulls(dict):
    """NULL for every parameter."""

    def __getitem__(self, key):
        return None


def test_schedulers_of_two_roles_do_not_take_each_other_for_dead(database, role):
    """Neither sees when the other's session started."""
    first = Session(Settings(postgres_url=role("grant_relay")))
    second = Session(Settings(postgres_url=role("grant_relay")))
    try:
        assert second.evict(3600) == []
        assert first.evict(3600) == []
        first.heartbeat()
        second.heartbeat()
        assert first.schedulers_alive() == 2
    finally:
        first.close()
        second.close()


def test_the_age_of_another_roles_publisher_needs_pg_read_all_stats(database, role):
    """docs/security.md says so."""
    make_pipeline(database)
    url = role("grant_publisher")
    with psycopg.connect(url) as publisher, database.connect() as owner:
        publish(publisher)
        oldest = "select tide.outbox_oldest_publisher_seconds(outbox_id) from tide.outbox"
        assert owner.execute(oldest).fetchone() == (0,)
        with database.admin() as admin:
            admin.execute("grant pg_read_all_stats to tide_owner")
            try:
                assert owner.execute(oldest).fetchone()[0] > 0
            finally:
                admin.execute("revoke pg_read_all_stats from tide_owner")
        assert run(owner, "pipelines_lag", names=["p"]).fetchone()[1] == 1
