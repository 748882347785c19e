-- Settings of every session, and migrations.

-- Sessions ---------------------------------------------------------------------------------------------------------

-- name: session_values
-- How values are written and read, which the role, the database or PGDATESTYLE may have set otherwise: psycopg cannot read a
-- German date, and nulls in arrays would be texts. Sets what differs only, and in sessions that a pooler shares only what
-- poolers keep for each of their clients. The encoding is told at the start, see connection.VALUES.
select pg_catalog.set_config(v.name, v.value, false)
  from (values ('datestyle', 'ISO', true), ('standard_conforming_strings', 'on', true), ('intervalstyle', 'postgres', false),
               ('bytea_output', 'hex', false), ('extra_float_digits', '1', false), ('array_nulls', 'on', false)) v (name, value, kept)
 where pg_catalog.split_part(pg_catalog.current_setting(v.name), ',', 1) <> v.value and (v.kept or not %(shared)s)

-- name: session
-- Settings of every session of the programs. Plans are made for the values at hand, so that a read opens only the partitions it needs;
-- and always along an index: on a partition that has grown since it was analysed, the planner would rather sort it whole.
-- READ COMMITTED whatever the database's default: messages must be read with a later snapshot than the horizon.
select set_config('statement_timeout', %(statement_timeout)s, false), set_config('timezone', 'UTC', false),
       set_config('search_path', 'pg_catalog', false), set_config('plan_cache_mode', 'force_custom_plan', false),
       set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false),
       set_config('enable_sort', 'off', false), set_config('default_transaction_isolation', 'read committed', false)

-- name: worker_session
-- What a crash of PostgreSQL may take back of bell and end is harmless: every owner starts again after it.
-- An inbox that its owner has locked holds no thread for long: its pipeline retries, and others have the thread meanwhile.
-- What each drain executes is planned once: planning takes ten times as long as executing it. What reads messages sees to itself.
select set_config('tide.durable', current_setting('synchronous_commit'), false), set_config('synchronous_commit', 'off', false),
       set_config('lock_timeout', '2s', false),
       set_config('plan_cache_mode', 'auto', false)

-- name: session_plans
-- How plans are made from now on in this session.
select set_config('plan_cache_mode', %(mode)s, false)

-- name: short_lock_waits
-- How long a sink or source waits for a table that its owner has locked: other pipelines need the thread.
select set_config('lock_timeout', '2s', false)

-- name: read_only
-- Why nothing can be written now; no row: it can.
select case when pg_catalog.pg_is_in_recovery() then 'this server is a standby'
            else 'default_transaction_read_only is on, which services set while the disk is full, or during a failover' end
 where pg_catalog.current_setting('transaction_read_only') = 'on'

-- name: database_identity
-- Which database this is: part of the names of queues.
select tide.database_identity()

-- name: process_beat
-- A sign of life of this process.
select tide.process_beat(%(process_id)s, %(kind)s, %(host)s, %(pid)s::int, %(version)s, %(queues)s::text[], %(lacking)s::text[])

-- name: process_stop
-- This process has ended.
select tide.process_stop(%(process_id)s)

-- Migrations -------------------------------------------------------------------------------------------------------

-- name: server_encoding
-- Of the database.
select current_setting('server_encoding')

-- name: migration_wait
-- How long a migration waits for locks.
select set_config('lock_timeout', %(timeout)s, true)

-- name: migration_lock
-- One migration at a time in this database; released with the transaction.
select pg_advisory_xact_lock(8388617265747561)

-- name: migration_table
-- Where the applied migrations and function files are recorded.
create schema if not exists tide;
create table if not exists tide.migration (
    version int primary key, name text not null, applied_at timestamptz not null default now(),
    compatible boolean not null default false
);
create table if not exists tide.function_file (
    name text primary key, checksum text not null, version text not null, applied_at timestamptz not null default now()
)

-- name: migration_exists
-- Whether anything was ever applied.
select to_regclass('tide.migration') is not null and to_regclass('tide.function_file') is not null

-- name: migration_applied
-- The versions that were applied, in order, and whether programs that do not know them go on working.
select m.version, m.compatible from tide.migration m order by m.version

-- name: migration_readable
-- Whether this role may see what was applied: applications may not. By object identity: names need rights to be looked up.
select count(*) = 2
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = 'tide' and c.relname in ('migration', 'function_file')
   and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')

-- name: migration_tell
-- Has the schedulers that run look at once whether they can work with the schema that it has become.
select pg_notify('tide_relay_config', '')

-- name: migration_record
-- A migration was applied.
insert into tide.migration (version, name, compatible) values (%(version)s, %(name)s, %(compatible)s)

-- name: migration_record_file
-- A function file was applied.
insert into tide.function_file (name, checksum, version) values (%(name)s, %(checksum)s, %(version)s)

-- name: migration_forget_files
-- All files are recorded again after this.
delete from tide.function_file

-- name: migration_files
-- The function files that were applied: their checksums, and the version of tide-relay that applied them.
select f.name, f.checksum, f.version from tide.function_file f

-- name: migration_copies
-- After the functions: queues and inboxes have copies of some of them. Those that move messages are made again when they are
-- needed.
select tide.job_copy(q.outbox_id) from tide.job_queue q;
select tide.inbox_write_copy(i) from tide.inbox i;
select tide.inbox_move_drop()

-- name: migration_permissions
-- After what was applied: no rights for PUBLIC, and the roles of `relay migrate --roles` get what is new.
select tide.apply_permissions()
