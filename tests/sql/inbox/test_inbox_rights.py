"""What a role may do with an inbox is what it may do with its table: claiming and marking use the caller's rights."""

import psycopg
import pytest

from tests.sql.inbox.inboxes import call, claim, failed, fill, names, processed
from tests.sql.security.logins import logins
from tests.sql.support import refused

pytestmark = pytest.mark.each_postgres

CALLS = """tide.find_inbox(text), tide.inbox_claim(text, text, int, int), tide.inbox_mark_processed(text, text[], text),
    tide.inbox_mark_failed(text, text, text, text, float8), tide.inbox_release(text, text[], text),
    tide.replay_inbox_messages(text, text[]), tide.inbox_is_my_partition(text, int, int),
    tide.inbox_pending(tide.inbox, text), tide.inbox_relation(tide.inbox), tide.inbox_claimable(tide.inbox),
    tide.inbox_waiting(tide.inbox, int, text), tide.inbox_is_next(tide.inbox), tide.inbox_heads(tide.inbox),
    tide.inbox_lock(tide.inbox, text, int), tide.inbox_lock_next(tide.inbox, int, timestamptz),
    tide.inbox_lock_aggregates(tide.inbox, text[])"""


@pytest.fixture
def worker(database):
    """A role that may work off the inbox commands, which has an order, and not the inbox secrets."""
    with database.admin() as admin, database.connect() as owner:
        admin.execute("create role inbox_worker_test login password 'secret'")
        call(owner, "tide.inbox_create('commands')")
        call(owner, "tide.enable_inbox_ordering('commands')")
        call(owner, "tide.inbox_create('secrets')")
        fill(owner, "a", "b", "c", "d")
        fill(owner, "s", inbox="secrets")
        owner.execute("grant usage on schema tide to inbox_worker_test")
        owner.execute(f"grant execute on function {CALLS} to inbox_worker_test")
        owner.execute("grant select, update on tide.commands to inbox_worker_test")
        owner.execute("grant select on tide.commands_pending, tide.next_commands to inbox_worker_test")
        try:
            url = database.server.process.url_of(database.name, "inbox_worker_test", "secret")
            with psycopg.connect(url, autocommit=True) as connection:
                yield connection
        finally:
            admin.execute("drop owned by inbox_worker_test; drop role inbox_worker_test")


def test_a_worker_works_off_its_inbox(worker):
    assert claim(worker, 3) == ["a", "b", "c"]
    assert processed(worker, "a", worker="w") == 1
    assert failed(worker, "b", "w") == "retry"
    assert call(worker, "tide.inbox_release('commands', array['c'], 'w')") == 1
    assert call(worker, "tide.replay_inbox_messages('commands', array['a'])") == 1
    assert names(worker, "next_commands") == ["a", "b", "c", "d"]


def test_a_worker_can_do_nothing_with_another_inbox(worker):
    for expression in (
        "tide.inbox_claim('secrets', 'w')",
        "tide.inbox_mark_processed('secrets', array['s'])",
        "tide.inbox_mark_failed('secrets', 's', 'no')",
        "tide.inbox_release('secrets', array['s'], 'w')",
        "tide.replay_inbox_messages('secrets', array['s'])",
    ):
        with refused("42501", "permission denied for table secrets"):
            call(worker, expression)


SIGHTS = ("tide.inbox_status(%s)", "tide.inbox_health(%s)", "tide.inbox_ordering_gaps(%s)")


def test_what_tells_of_an_inbox_tells_only_who_may_read_it(database):
    with logins(database) as make, database.connect() as owner:
        (name, url), (_, consumer_url), (_, reader_url) = make(), make("grant_consumer"), make("grant_reader")
        for inbox in ("commands", "secrets"):
            call(owner, "tide.inbox_create(%s)", inbox)
            call(owner, "tide.enable_inbox_ordering(%s)", inbox)
        call(owner, "tide.inbox_grant('commands', %s)", name)
        seen = {
            url: [["commands"], ("commands",), ("secrets",)],
            consumer_url: [[], (), ("commands", "secrets")],
            reader_url: [["commands", "secrets"], ("commands", "secrets"), ()],
        }
        for role, (listed, allowed, hidden) in seen.items():
            with psycopg.connect(role, autocommit=True) as connection:
                assert [row[0] for row in connection.execute("select name from tide.inbox_status()")] == listed
                for sight in SIGHTS:
                    for inbox in allowed:
                        connection.execute(f"select {sight}", [inbox])
                    for inbox in hidden:
                        with refused("42501", f'may not read inbox "{inbox}"'):
                            connection.execute(f"select {sight}", [inbox])


def test_a_worker_can_neither_remove_messages_nor_change_the_inbox(worker):
    for statement in (
        "delete from tide.commands",
        "select tide.inbox_retain('commands')",
        "select tide.inbox_drop('commands')",
        "select tide.enable_inbox_priority('commands', 'retry_count')",
        "select * from tide.commands_dlq",
    ):
        with refused("42501", "permission denied"):
            worker.execute(statement)
