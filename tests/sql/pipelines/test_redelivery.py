"""The calls about dead letters, replays and the history of configurations: what they return and what they refuse."""

from psycopg.types.json import Jsonb

from tests.sql.support import make_pipeline, publish_many, refused, run


def bury(connection, *ids, pipeline="p", code="bad", age="0"):
    """Dead letters of messages that are there."""
    connection.execute(
        "insert into tide.dead_letter (pipeline, outbox, message_id, headers, payload, published_at, first_failed_at,"
        " failed_at, code, reason)"
        " select %s, 'orders', n, '{}', '1', now(), now() - %s::interval, now() - %s::interval, %s, 'refused'"
        " from unnest(%s::bigint[]) n",
        [pipeline, age, age, code, list(ids)],
    )


def settled_up_to(connection, offset_id):
    connection.execute("update tide.consumer_group set offset_id = %s", [offset_id])


def rows(connection, statement, *parameters):
    return connection.execute(statement, parameters).fetchall()


# Dead letters --------------------------------------------------------------------------------------------------------


def test_dead_letters_are_listed_in_pages_of_one_pipeline_or_all(database):
    make_pipeline(database)
    make_pipeline(database, "q")
    with database.connect() as db:
        bury(db, 1, 2, 3)
        bury(db, 1, pipeline="q")
        assert len(rows(db, "select * from tide.relay_dlq_list()")) == 4
        [(code, number)] = rows(db, "select code, count(*) from tide.dead_letter group by code order by 2, 1 limit 1")
        assert len(rows(db, "select * from tide.relay_dlq_list(code => %s)", code)) == number
        assert rows(db, "select * from tide.relay_dlq_list(code => 'none')") == []
        first = rows(db, "select dead_letter_id, message_id from tide.relay_dlq_list('p', max_rows => 2)")
        assert [row[1] for row in first] == [1, 2]
        rest = rows(db, "select message_id from tide.relay_dlq_list('p', after_id => %s)", first[-1][0])
        assert rest == [(3,)]


def test_the_numbers_are_told_by_pipeline_and_code(database):
    make_pipeline(database)
    with database.connect() as db:
        bury(db, 1, 2)
        bury(db, 3, code="too_large")
        db.execute("select tide.relay_dlq_retry(dead_letter_id) from tide.dead_letter where message_id = 1")
        found = rows(db, "select code, dead_letters, retrying, most_attempts from tide.relay_dlq_stats('p')")
    assert found == [("bad", 2, 1, 1), ("too_large", 1, 0, 1)]


def test_a_purge_forgets_what_is_old_enough(database):
    make_pipeline(database)
    with database.connect() as db:
        bury(db, 1, age="2 days")
        bury(db, 2)
        assert rows(db, "select tide.relay_dlq_purge('p', '1 day')") == [(1,)]
        assert rows(db, "select message_id from tide.relay_dlq_list()") == [(2,)]
        assert rows(db, "select tide.relay_dlq_purge('p')") == [(1,)]
        assert rows(db, "select tide.relay_dlq_purge('p')") == [(0,)]


def test_what_does_not_exist_is_refused(database):
    make_pipeline(database)
    with database.connect() as db:
        for call in ("relay_dlq_retry(99)", "relay_dlq_discard(99)", "relay_replay_cancel(99)"):
            with refused("42704", "99"):
                db.execute(f"select tide.{call}")
        for call in ("relay_dlq_retry('x')", "relay_dlq_purge('x')", "relay_replay('x', 1)"):
            with refused("42704", '"x"', hint="relay_list_configs"):
                db.execute(f"select tide.{call}")
        with refused("22004"):
            db.execute("select tide.relay_dlq_purge(null)")


def test_requests_end_with_their_pipeline(database):
    make_pipeline(database)
    with database.connect() as db:
        bury(db, 1)
        publish_many(db, 3)
        settled_up_to(db, 3)
        db.execute("select tide.relay_dlq_retry('p'), tide.relay_replay('p', 1)")
        assert rows(db, "select * from tide.redelivery_waiting") == [("p",)]
        db.execute("select tide.relay_delete('p')")
        assert rows(db, "select * from tide.redelivery_waiting") == []
        assert rows(db, "select pipeline from tide.relay_dlq_list()") == [("p",)], "what was refused is still kept"
        with refused("42704", '"p"'):
            db.execute("select tide.relay_dlq_retry(dead_letter_id) from tide.dead_letter")


def test_a_dead_letter_of_the_other_direction_cannot_be_retried(database):
    make_pipeline(database)
    with database.connect() as db:
        bury(db, 1)
        db.execute("select tide.relay_delete('p'), tide.inbox_create('commands')")
        db.execute("select tide.relay_set_inbox('p', 'commands', %s)", [Jsonb({"source_type": "memory"})])
        with refused("55000", '"p"', hint="other direction"):
            db.execute("select tide.relay_dlq_retry(dead_letter_id) from tide.dead_letter")
        assert rows(db, "select tide.relay_dlq_retry('p')") == [(0,)]


def test_the_timer_sees_what_nobody_rang_for(database):
    for name in ("p", "q", "r"):
        make_pipeline(database, name)
    with database.connect() as db:
        publish_many(db, 2)
        settled_up_to(db, 2)
        bury(db, 1)
        db.execute("select tide.relay_dlq_retry('p'), tide.relay_replay('q', 1)")
        names = ["p", "q", "r"]
        assert {name for (name,) in run(db, "pipelines_behind", names=names)} == {"p", "q"}
        db.execute("select tide.relay_dlq_purge('p'), tide.relay_replay_cancel(replay_id) from tide.replay")
        assert run(db, "pipelines_behind", names=names).fetchall() == []


# Replays -------------------------------------------------------------------------------------------------------------


def test_a_preview_tells_what_a_replay_would_deliver(database):
    make_pipeline(database)
    with database.connect() as db:
        ids = publish_many(db, 10)
        settled_up_to(db, 10)
        bury(db, 4)
        [found] = rows(
            db,
            "select messages, bytes > 0, first_id, last_id, first_at is not null, dead_letters, oldest_kept_id"
            " from tide.relay_replay_preview('p', 3, 8)",
        )
        assert found == (6, True, ids[2], ids[7], True, 1, ids[0])
        assert rows(db, "select messages from tide.relay_replay_preview('p', 3)") == [(8,)]
        assert rows(db, "select * from tide.relay_replays()") == [], "nothing was asked for"


def test_a_range_must_lie_below_the_offset(database):
    make_pipeline(database)
    with database.connect() as db:
        publish_many(db, 10)
        settled_up_to(db, 6)
        for bad in ("0, 3", "4, 3", "null, 3", "7, null"):
            with refused("22023", "no range"):
                db.execute(f"select tide.relay_replay('p', {bad})")
        with refused("22023", "up to 6", hint="Replay up to 6"):
            db.execute("select tide.relay_replay('p', 1, 7)")
        assert rows(db, "select tide.redelivery_floor(1)") == [(None,)]
        db.execute("select tide.relay_replay('p', 4, 6), tide.relay_replay('p', 2, 3)")
        assert rows(db, "select tide.redelivery_floor(1)") == [(2,)]
        assert rows(db, "select from_id, to_id, next_id, requested_by = session_user from tide.relay_replays('p')") == [
            (4, 6, 4, True),
            (2, 3, 2, True),
        ]


def test_a_replay_that_ended_long_ago_is_forgotten_with_the_history(database):
    make_pipeline(database)
    with database.connect() as db:
        publish_many(db, 5)
        db.execute("update tide.consumer_group set offset_id = 5")
        for _ in range(3):
            db.execute("select tide.relay_replay('p', 1)")
        db.execute("update tide.replay set ended_at = now() - interval '3 hours' where replay_id = 1")
        db.execute("update tide.replay set ended_at = now() where replay_id = 2")
        assert rows(db, "select tide.config_history_retain()") == [(0,)]
        db.execute("select tide.setting_set('config_history_retention_hours', '2')")
        assert rows(db, "select tide.config_history_retain()") == [(1,)]
        assert rows(db, "select replay_id from tide.relay_replays()") == [(2,), (3,)]


def test_an_inbox_has_nothing_to_replay(database):
    with database.connect() as db:
        db.execute("select tide.inbox_create('commands')")
        db.execute("select tide.relay_set_inbox('p', 'commands', %s)", [Jsonb({"source_type": "memory"})])
        with refused("42809", "reverse", hint="replay_inbox_messages"):
            db.execute("select tide.relay_replay('p', 1, 2)")


# History -------------------------------------------------------------------------------------------------------------


def history(db, *columns):
    return rows(db, f"select {', '.join(columns)} from tide.relay_config_history('p')")


def test_every_change_is_kept_with_who_made_it(database):
    make_pipeline(database)
    with database.connect() as db:
        db.execute("set application_name = 'deploy 7'")
        db.execute("select tide.relay_set_outbox('p', 'orders', %s)", [Jsonb({"sink_type": "memory", "name": "b"})])
        db.execute("select tide.relay_disable('p')")
        db.execute("select tide.relay_enable('p')")
        db.execute("select tide.relay_delete('p')")
        found = history(db, "action", "old -> 'config' ->> 'name'", "new -> 'config' ->> 'name'", "new -> 'enabled'")
        assert found == [
            ("create", None, None, True),
            ("change", None, "b", True),
            ("disable", "b", "b", False),
            ("enable", "b", "b", True),
            ("delete", "b", None, None),
        ]
        assert history(db, "program", "changed_by = session_user")[1:] == [("deploy 7", True)] * 4
        [(old,)] = history(db, "old")[-1:]
        assert (old["outbox"], old["consumer_group"], old["direction"]) == ("orders", "p", "forward")
        assert "inbox" not in old


def test_what_changes_nothing_is_no_change(database):
    make_pipeline(database)
    with database.connect() as db:
        db.execute("select tide.relay_set_outbox('p', 'orders', %s)", [Jsonb({"sink_type": "memory"})])
        db.execute("select tide.relay_enable('p')")
        db.execute("update tide.pipeline set invalid_reason = 'broken'")
        assert history(db, "action") == [("create",)]


def test_a_change_that_is_rolled_back_is_not_told(database):
    make_pipeline(database)
    with database.connect() as db:
        with db.transaction(force_rollback=True):
            db.execute("select tide.relay_disable('p')")
        assert history(db, "action") == [("create",)]


def test_who_is_the_role_that_was_set(database):
    make_pipeline(database)
    with database.admin() as db:
        db.execute("create role carol")
        try:
            db.execute("grant usage on schema tide to carol")
            db.execute("grant execute on function tide.relay_disable(text) to carol")
            db.execute("set role carol")
            db.execute("select tide.relay_disable('p')")
            db.execute("reset role")
            assert history(db, "changed_by")[-1:] == [("carol",)]
        finally:
            db.execute("drop owned by carol")
            db.execute("drop role carol")
