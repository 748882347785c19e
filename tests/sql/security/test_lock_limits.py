"""No call of people who configure or are on duty waits without limit for a lock that someone else holds."""

# They call one that has a limit.
THROUGH_ANOTHER = {
    "pgtrickle.relay_outbox(text,jsonb)",
    "pgtrickle.set_relay_inbox(text,jsonb)",
    "pgtrickle.set_relay_outbox(text,jsonb)",
    "tide.job_queue_pause(text)",
    "tide.job_queue_resume(text)",
    "tide.outbox_create_if_not_exists(text,integer,integer,bigint)",
    "tide.relay_set_outbox(text,text,jsonb)",
}
# Parts of tide.table_outbox_enable, tide.table_outbox_disable and tide.table_route, which have a limit.
PARTS = {
    "tide.table_outbox_forget(oid,boolean)",
    "tide.table_outbox_register(oid,text,text,integer,integer)",
    "tide.table_route_append(oid,jsonb[],text[],jsonb[])",
    "tide.table_route_existing(oid)",
    "tide.table_route_forget(oid,boolean)",
    "tide.table_route_register(oid,text,jsonb,jsonb,integer,integer)",
}
# Of the one who writes to the table.
TRIGGERS = {"tide.table_outbox_changed()", "tide.table_routed()"}
# Turns of maintenance: the sessions of workers have a limit.
MAINTENANCE = {
    "tide.config_history_retain(integer)",
    "tide.consumers_reap()",
    "tide.dead_letter_retain(integer)",
    "tide.inbox_retain(text,integer)",
}


def test_every_function_that_changes_what_is_configured_limits_its_wait(database):
    with database.connect() as owner:
        found = owner.execute("""
            select distinct p.oid::regprocedure::text
              from tide.permission a
              join pg_namespace n on n.nspname = a.schema
              join pg_proc p on p.pronamespace = n.oid and p.proname = a.object
              join pg_language l on l.oid = p.prolang
             where a.object_type = 'function' and a.kind in ('admin', 'operator', 'job_operator')
               and p.provolatile = 'v' and l.lanname = 'plpgsql'
               and not coalesce(p.proconfig::text, '') like '%lock_timeout%'
             order by 1""").fetchall()
    assert {name for (name,) in found} == THROUGH_ANOTHER | PARTS | TRIGGERS | MAINTENANCE
