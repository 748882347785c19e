"""What an application may put on its table that would run as another role, and what does no harm there."""

REWRITE = "ts_rewrite('a'::tsquery, 'select ''a''::tsquery, ''b''::tsquery from app.trap()')"
TRAP = """
    create table app.sprung (who text);
    grant insert on app.sprung to public;
    create function app.trap() returns boolean language plpgsql security invoker as
        $$ begin insert into app.sprung values (current_user); return true; end $$;
    create function app.pure_trap() returns text language plpgsql immutable as
        $$ begin perform app.trap(); return 'x'; end $$;
    create function app.fire() returns trigger language plpgsql as
        $$ begin perform app.trap(); return case tg_op when 'DELETE' then old else new end; end $$;
    create type app.mood as enum ('good');
    create function app.mood_trap(app.mood) returns text language plpgsql as
        $$ begin perform app.trap(); return 'x'; end $$;
    create cast (app.mood as text) with function app.mood_trap(app.mood) as assignment;
    create function app.text_trap(text) returns app.mood language plpgsql as
        $$ begin perform app.trap(); return 'good'; end $$;
    create cast (text as app.mood) with function app.text_trap(text) as assignment;
    create domain app.checked as text check (app.trap());
    create type app.holder as (c app.checked);
    create view app.view as select from app.trap();"""

TABLE = "create table app.events (event_id text primary key, mine text)"
MOODY = "create table app.events (event_id app.mood primary key, mine text)"

# What is put on the table, and what is said of it.
TRAPS = {
    "trigger": (
        "create trigger t before insert or delete on app.events for each row execute function app.fire()",
        "app.fire()",
    ),
    "trigger_condition": (
        (
            "create trigger t before insert or update on app.events for each row when (app.trap())"
            " execute function suppress_redundant_updates_trigger()"
        ),
        "app.trap()",
    ),
    "deferred_trigger": (
        (
            "create constraint trigger t after insert on app.events deferrable initially deferred"
            " for each row execute function app.fire()"
        ),
        "app.fire()",
    ),
    "default": ("alter table app.events alter mine set default app.pure_trap()", "app.pure_trap()"),
    "generated": (
        "alter table app.events add g text generated always as (app.pure_trap() || event_id) stored",
        "app.pure_trap()",
    ),
    "check": ("alter table app.events add check (app.trap()) not valid", "app.trap()"),
    "index": ("create index on app.events ((app.pure_trap() || mine))", "app.pure_trap()"),
    "policy": (
        (
            "alter table app.events enable row level security, force row level security;"
            " create policy p on app.events using (app.trap()) with check (app.trap())"
        ),
        "app.trap()",
    ),
    "rule": ("create rule r as on insert to app.events do also select app.trap()", "rule r"),
    "domain": ("alter table app.events add more app.checked", "app.checked"),
    "child": ("create table app.child () inherits (app.events)", "app.child"),
    "cascade": (
        (
            "create table app.child (event_id text references app.events on delete cascade);"
            " create trigger t after delete on app.child for each row execute function app.fire()"
        ),
        "table app.child, which belongs to app",
    ),
}

SINCE = {"type_named_at_run_time": 16}
"""The first PostgreSQL that has the function, where one is newer than 14."""

# The same kind with functions of PostgreSQL, which leave no trace in pg_depend, and in other places.
BUILT_IN_TRAPS = {
    "text_run_by_a_default": (f"alter table app.events alter mine set default {REWRITE}::text", "ts_rewrite"),
    "text_run_by_a_check": (f"alter table app.events add check ({REWRITE} is not null) not valid", "ts_rewrite"),
    "text_run_by_a_condition": (
        (
            f"create trigger t before insert on app.events for each row when ({REWRITE} is not null)"
            " execute function suppress_redundant_updates_trigger()"
        ),
        "ts_rewrite",
    ),
    "type_named_at_run_time": (
        "alter table app.events alter mine set default pg_input_is_valid('x', 'app.checked')::text",
        "pg_input_is_valid",
    ),
    "conversion_to_a_domain": (
        "alter table app.events alter mine set default ('x'::app.checked)::text",
        "type app.checked",
    ),
    "row_with_a_domain": (
        "alter table app.events alter mine set default ('(x)'::text::app.holder)::text",
        "type app.holder",
    ),
    "notification": (
        "alter table app.events alter mine set default (pg_notify('tide_outbox_notify', 'x'))::text",
        "pg_notify",
    ),
    "settings": ("alter table app.events alter mine set default set_config('role', 'none', false)", "set_config"),
    "sequence_of_tide": (
        "alter table app.events alter mine set default nextval('tide.epochs')::text",
        "a sequence of another owner",
    ),
    "sequence_by_name": (
        "create sequence app.s; alter table app.events alter mine set default nextval(('app.' || 's')::regclass)::text",
        "regclass",
    ),
    "function_of_tide": (
        "alter table app.events alter mine set default (tide.grant_admin('app'))::text",
        "grant_admin",
    ),
    # The planner computes the part that is constant.
    "statistics": (
        "create statistics app.stat on (app.pure_trap() || mine) from app.events",
        "app.pure_trap()",
    ),
    "policy_with_a_query": (
        (
            "alter table app.events enable row level security, force row level security;"
            " create policy p on app.events using (exists (select from app.view)) with check (true)"
        ),
        "a query",
    ),
    "partition": (
        (
            "create table app.whole (like app.events) partition by range ((app.pure_trap() || mine));"
            " alter table app.events alter inbox_seq drop identity;"
            " alter table app.whole attach partition app.events default"
        ),
        "it is a partition",
    ),
}

HARMLESS = """
    alter table app.events alter mine set default upper('a') || now()::text || current_user,
        add id uuid default gen_random_uuid(), add number serial, add counted int generated by default as identity,
        add due timestamptz default now() + interval '1 day', add told jsonb default jsonb_build_object('at', now()),
        add made text generated always as (lower(mine)) stored, add tags text[] default array['a'],
        add check (length(mine) > 0 and mine ~ '.' or mine in ('a', 'b')), add check (due > '2020-01-01'::date),
        add constraint exact unique (number) deferrable;
    create index on app.events (lower(mine)) where mine is not null;
    create statistics app.stat on (lower(mine)) from app.events;
    create table app.kinds (kind text primary key);
    alter table app.events add kind text default 'k' references app.kinds on delete set null;
    insert into app.kinds values ('k');
    create trigger t before update on app.events for each row when (new.mine <> old.mine)
        execute function suppress_redundant_updates_trigger()"""
