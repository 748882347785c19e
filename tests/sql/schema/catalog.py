"""What the schemas of tide-relay are in a database, to compare two of them."""

import os
import re
import subprocess
from urllib.parse import urlsplit

ONE_OUTBOX = re.compile(r"\bmessage_(hundred_)?\d")

CATALOG = """
    select 'relation', c.oid::regclass::text, c.relkind::text, c.reloptions::text,
           coalesce(pg_get_partkeydef(c.oid), ''), coalesce(c.relacl::text, '')
      from pg_class c where c.relnamespace = 'tide'::regnamespace
    union all
    select 'column', a.attrelid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod),
           a.attnotnull || a.attidentity::text || coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
           coalesce(a.attacl::text, '')
      from pg_attribute a join pg_class c on c.oid = a.attrelid
      left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where c.relnamespace = 'tide'::regnamespace and a.attnum > 0 and not a.attisdropped
    union all
    select 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
      from pg_constraint where connamespace = 'tide'::regnamespace
    union all
    select 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid), '', '', coalesce(p.proacl::text, '')
      from pg_proc p where p.pronamespace in ('tide'::regnamespace, 'pgtrickle'::regnamespace)
    union all
    select 'comment', d.description, d.objsubid::text, '', '', ''
      from pg_description d
     where d.objoid in (select oid from pg_class where relnamespace = 'tide'::regnamespace
                        union all select oid from pg_proc where pronamespace = 'tide'::regnamespace)
    union all
    select 'migration', m.version::text, m.name, m.compatible::text, '', '' from tide.migration m
    union all
    select 'trigger', t.tgrelid::regclass::text, pg_get_triggerdef(t.oid), '', '', ''
      from pg_trigger t join pg_class c on c.oid = t.tgrelid
     where c.relnamespace = 'tide'::regnamespace and not t.tgisinternal
    union all
    select 'index', indexdef, '', '', '', '' from pg_indexes where schemaname = 'tide'
    union all
    select 'view', viewname, definition, '', '', '' from pg_views where schemaname = 'tide'
    union all
    select 'row', 'setting', to_jsonb(s)::text, '', '', '' from tide.setting s
    union all
    select 'row', 'permission', to_jsonb(p)::text, '', '', '' from tide.permission p
    union all
    select 'row', 'function_file', (to_jsonb(f) - 'applied_at')::text, '', '', '' from tide.function_file f
"""


def catalog(database):
    """Everything in our schemas, and the rows that migrations write."""
    with database.connect() as connection:
        return sorted(connection.execute(CATALOG).fetchall())


def dump(database):
    """The schema as pg_dump writes it, without what belongs to single outboxes."""
    url = urlsplit(database.admin_url)
    arguments = [
        "--schema-only",
        "--schema=tide",
        "--schema=pgtrickle",
        "--exclude-table=tide.message_*",
        "--host=127.0.0.1",
        f"--port={url.port}",
    ]
    program = database.server.clients / "pg_dump"
    done = subprocess.run(
        [program, *arguments, f"--username={url.username}", database.name],
        env=os.environ | {"PGPASSWORD": url.password or ""}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return [line for line in done.stdout.splitlines() if not line.startswith("\\")]


def common(database):
    """The same as `catalog`, without single outboxes and what people set."""
    ours = [row for row in catalog(database) if not any(ONE_OUTBOX.search(str(cell)) for cell in row[:3])]
    return [row for row in ours if "inbox_dlq_alert_max_per_refresh" not in row[2]]
