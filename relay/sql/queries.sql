-- Every statement of the relay. A name, one line of comment, the statement. Parameters are %(named)s.

-- name: session
-- Settings of every session. Plans are made for the values at hand, so that a read opens only the partitions it needs;
-- and always along an index: on a partition that has grown since it was analysed, the planner would rather sort it whole.
-- READ COMMITTED whatever the database's default: messages must be read with a later snapshot than the horizon.
select set_config('statement_timeout', %(statement_timeout)s, false), set_config('timezone', 'UTC', false),
       set_config('search_path', 'pg_catalog', false), set_config('plan_cache_mode', 'force_custom_plan', false),
       set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false),
       set_config('enable_sort', 'off', false), set_config('default_transaction_isolation', 'read committed', false)

-- name: migration_wait
-- How long a migration waits for locks.
select set_config('lock_timeout', %(timeout)s, true)

-- Migrations ------------------------------------------------------------------------------------------------------

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

-- name: migration_permissions
-- After what was applied: no rights for PUBLIC, and the roles of `relay migrate --roles` get what is new.
select tide.apply_permissions()

-- name: migration_files
-- The function files that were applied: their checksums, and the version of tide-relay that applied them.
select f.name, f.checksum, f.version from tide.function_file f

-- name: migration_forget_files
-- All files are recorded again after this.
delete from tide.function_file

-- name: migration_record_file
-- A function file was applied.
insert into tide.function_file (name, checksum, version) values (%(name)s, %(checksum)s, %(version)s)

-- Drains: what a worker does --------------------------------------------------------------------------------------

-- name: worker_session
-- What a crash of PostgreSQL may take back of bell and end is harmless: every owner starts anew after it.
select set_config('synchronous_commit', 'off', false)

-- name: durably
-- This transaction is as durable as the server is told to be. A settle that a crash took back would be delivered twice;
-- after a begin that it took back, another drain could begin while this one publishes.
set local synchronous_commit to default

-- name: drain_begin
-- Takes the lease, if nobody has it, the drain is neither stale nor a duplicate and its pipeline is enabled. No row: drop it.
update tide.drain d
   set number = %(number)s, lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
  from tide.pipeline p
  left join tide.consumer_group g on g.group_id = p.group_id
  left join tide.outbox o on o.outbox_id = g.outbox_id
  left join tide.inbox i on i.inbox_id = p.inbox_id
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number < %(number)s and d.lease_until is null
   and p.name = d.pipeline and p.enabled
returning p.direction, p.config, p.revision, d.failures, g.group_id, g.offset_id, o.outbox_id, o.name as outbox,
          i.name as inbox,
          (select coalesce(jsonb_object_agg(s.partition, s.position), '{}')
             from tide.position s where s.pipeline = d.pipeline) as positions,
          exists (select from tide.dead_letter x where x.pipeline = d.pipeline and x.retry_requested_at is not null)
              or exists (select from tide.replay r where r.pipeline = d.pipeline and r.ended_at is null) as redeliver

-- name: drain_end
-- Gives the lease back, says what became of the drain, and tells the pipeline's owner. No row: fenced.
with ended as (
    update tide.drain
       set lease_until = null, ended_at = clock_timestamp(), outcome = %(outcome)s,
           failures = %(failures)s, retry_at = clock_timestamp() + make_interval(secs => %(retry_seconds)s),
           error_code = %(error_code)s, error = %(error)s,
           error_at = case when %(error)s::text is null then null else clock_timestamp() end
     where pipeline = %(pipeline)s and epoch = %(epoch)s and number = %(number)s
    returning pipeline, epoch, number, outcome
), quiet as (
    -- Nothing a publisher could ring for: the retry, or the enabling, drains the pipeline, and then arms the bell again.
    update tide.bell b set armed = false
      from ended e join tide.pipeline p on p.name = e.pipeline
     where b.group_id = p.group_id and b.armed and (e.outcome = 'failed' or not p.enabled)
)
select pg_notify('tide_relay_drain', json_build_array(
           e.pipeline, e.epoch, e.number, e.outcome, %(retry_seconds)s::float8, %(progressed)s::boolean)::text)
  from ended e

-- name: settle
-- Writes what became of a batch and renews the lease. No row: fenced, nothing was written.
with fence as (
    update tide.drain
       set lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s),
           delivered = delivered + %(delivered)s, dead_letters = dead_letters + %(dead_letters)s
     where pipeline = %(pipeline)s and epoch = %(epoch)s and number = %(number)s
    returning pipeline
), moved as (
    update tide.consumer_group g set offset_id = %(offset_id)s
      from fence where g.group_id = %(group_id)s and g.offset_id < %(offset_id)s
)
select p.revision from fence join tide.pipeline p on p.name = fence.pipeline

-- name: settle_dead_letters
-- Keeps refused messages whole; runs before `settle` in the same transaction, under the same fence. One that was refused
-- before, and sent once more, is kept once.
insert into tide.dead_letter (pipeline, outbox, message_id, key, headers, payload, published_at, code, reason)
select d.pipeline, %(outbox)s, m.id, m.key, m.headers, m.payload, m.created_at, r.code, r.reason
  from unnest(%(ids)b::bigint[], %(codes)b::text[], %(reasons)b::text[]) as r (id, code, reason)
  join tide.message m on m.outbox_id = %(outbox_id)s and m.id = r.id
  join tide.drain d on d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s
 order by m.id
on conflict (pipeline, outbox, message_id) do update
    set attempts = dead_letter.attempts + 1, failed_at = clock_timestamp(), code = excluded.code, reason = excluded.reason,
        retry_requested_at = null

-- name: bell_arm
-- Asks publishers to NOTIFY. Writes nothing when the bell is armed already.
update tide.bell b set armed = true
  from tide.drain d
 where b.group_id = %(group_id)s and not b.armed
   and d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s

-- name: bell_disarm
-- The group is awake: publishers need not NOTIFY. Holds the fence, so that it cannot undo what the next drain arms.
with fence as (
    select d.pipeline from tide.drain d
     where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s
       for share
)
update tide.bell b set armed = false
  from fence
 where b.group_id = %(group_id)s and b.armed

-- name: bell_silence
-- A drain that will answer waits in the queue, and has not begun: publishers need not ring meanwhile. Holds the fence, so
-- that the drain begins, and arms the bell again, only after this.
with fence as (
    select d.pipeline from tide.drain d
     where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number < %(number)s and d.owner = %(scheduler_id)s
       for share
)
update tide.bell b set armed = false
  from fence join tide.pipeline p on p.name = fence.pipeline
 where b.group_id = p.group_id and b.armed

-- Reading an outbox -----------------------------------------------------------------------------------------------

-- name: begin
-- A transaction whose statements have snapshots of their own, whatever the database's default.
begin isolation level read committed

-- name: horizon_known
-- A horizon that was read before, for this transaction: behind a pooler the next one may run in another session.
select set_config('tide.horizon', %(horizon)s::bigint::text, true)

-- name: outbox_horizon
-- The horizon, kept in the session for `outbox_read`, which must be a later statement of the same transaction, with a
-- later snapshot.
select horizon, open_publishers, set_config('tide.horizon', horizon::text, false)
  from tide.outbox_horizon(%(outbox_id)s)

-- name: outbox_read
-- The next messages up to the horizon: at most max_messages, at most max_bytes unless one alone is larger.
select m.id, m.key, convert_to(m.payload::text, 'UTF8'), convert_to(m.headers::text, 'UTF8'), m.created_at
  from (select id, key, payload, headers, created_at,
               sum(size) over (order by id rows unbounded preceding) - size as bytes_before
          from tide.message
         where outbox_id = %(outbox_id)s and id > %(after)s and id <= current_setting('tide.horizon')::bigint
         order by id
         limit %(max_messages)s) m
 where m.bytes_before < %(max_bytes)s
 order by m.id

-- Redelivery: dead letters that are to be retried, and replays --------------------------------------------------------

-- name: redelivery_dead_letters
-- The next dead letters of one outbox to be sent again, at most max_messages, at most max_bytes unless one is larger.
select d.dead_letter_id, d.outbox, d.message_id, d.key, convert_to(d.payload, 'UTF8'), convert_to(d.headers::text, 'UTF8'),
       d.published_at
  from (select dead_letter_id, outbox, message_id, key, payload, headers, published_at,
               first_value(outbox) over w as first_outbox,
               sum(octet_length(payload)) over w - octet_length(payload) as bytes_before
          from (select dead_letter_id, outbox, message_id, key, payload::text as payload, headers, published_at
                  from tide.dead_letter
                 where pipeline = %(pipeline)s and outbox is not null and retry_requested_at is not null
                 order by dead_letter_id
                 limit %(max_messages)s) asked
        window w as (order by dead_letter_id rows unbounded preceding)) d
 where d.bytes_before < %(max_bytes)s and d.outbox = d.first_outbox
 order by d.dead_letter_id

-- name: redelivery_received
-- The same for a reverse pipeline: what was received, as it came.
select d.dead_letter_id, d.event_id, d.body, d.headers, d.key, coalesce(d.subject, '')
  from (select dead_letter_id, event_id, body, coalesce(headers, '{}') as headers, key, subject,
               sum(octet_length(body)) over (order by dead_letter_id rows unbounded preceding) - octet_length(body) as bytes_before
          from (select dead_letter_id, event_id, body, headers, key, subject
                  from tide.dead_letter
                 where pipeline = %(pipeline)s and inbox is not null and retry_requested_at is not null
                 order by dead_letter_id
                 limit %(max_messages)s) asked) d
 where d.bytes_before < %(max_bytes)s
 order by d.dead_letter_id

-- name: redelivery_settle
-- What became of dead letters: those delivered are gone, those refused again stay; renews the lease. No row: fenced.
with fence as (
    update tide.drain
       set lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s),
           delivered = delivered + cardinality(%(delivered_ids)b::bigint[])
     where pipeline = %(pipeline)s and epoch = %(epoch)s and number = %(number)s
    returning pipeline
), gone as (
    delete from tide.dead_letter d using fence
     where d.pipeline = fence.pipeline and d.dead_letter_id = any(%(delivered_ids)b::bigint[])
), kept as (
    update tide.dead_letter d
       set attempts = d.attempts + 1, failed_at = clock_timestamp(), code = r.code, reason = r.reason, retry_requested_at = null
      from fence, unnest(%(ids)b::bigint[], %(codes)b::text[], %(reasons)b::text[]) as r (id, code, reason)
     where d.pipeline = fence.pipeline and d.dead_letter_id = r.id
)
select p.revision from fence join tide.pipeline p on p.name = fence.pipeline

-- name: replay_next
-- The replay in hand: the one that was asked for first. Not one of an outbox that this drain does not read.
select r.replay_id, r.next_id, r.to_id from tide.replay r
 where r.pipeline = %(pipeline)s and r.ended_at is null and r.outbox_id = %(outbox_id)s
 order by r.replay_id limit 1

-- name: replay_read
-- Its next messages. They were settled once, so all of them lie below the horizon.
select m.id, m.key, convert_to(m.payload::text, 'UTF8'), convert_to(m.headers::text, 'UTF8'), m.created_at
  from (select id, key, payload, headers, created_at,
               sum(size) over (order by id rows unbounded preceding) - size as bytes_before
          from tide.message
         where outbox_id = %(outbox_id)s and id >= %(next_id)s and id <= %(to_id)s
         order by id
         limit %(max_messages)s) m
 where m.bytes_before < %(max_bytes)s
 order by m.id

-- name: replay_settle
-- How far a replay has come. What it delivered is no dead letter any more. Renews the lease. No row: fenced.
with fence as (
    update tide.drain
       set lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s),
           delivered = delivered + cardinality(%(delivered_ids)b::bigint[])
     where pipeline = %(pipeline)s and epoch = %(epoch)s and number = %(number)s
    returning pipeline
), moved as (
    update tide.replay r
       set next_id = %(next_id)s, delivered = r.delivered + cardinality(%(delivered_ids)b::bigint[]),
           dead_letters = r.dead_letters + %(dead_letters)s,
           ended_at = case when %(next_id)s > r.to_id then clock_timestamp() else r.ended_at end
      from fence where r.replay_id = %(replay_id)s and r.pipeline = fence.pipeline
), gone as (
    delete from tide.dead_letter d using fence
     where d.pipeline = fence.pipeline and d.outbox = %(outbox)s and d.message_id = any(%(delivered_ids)b::bigint[])
)
select p.revision from fence join tide.pipeline p on p.name = fence.pipeline

-- The outbox of another database, as a source ----------------------------------------------------------------------

-- name: source_outbox
-- An outbox, the highest id taken, our group in it, who has the group there: a pipeline, or consumers that poll it, which
-- an older database does not know.
select o.outbox_id, tide.outbox_last_id(o.outbox_id), g.group_id, g.offset_id, p.name,
       coalesce((to_jsonb(g) ->> 'polled')::boolean, false)
  from tide.outbox o
  left join tide.consumer_group g on g.outbox_id = o.outbox_id and g.name = %(consumer_group)s
  left join tide.pipeline p on p.group_id = g.group_id
 where o.name = %(outbox)s

-- name: outbox_create_group
-- Makes our group where it is missing: at the oldest message that is kept, with its bell silent.
with made as (
    insert into tide.consumer_group (outbox_id, name) values (%(outbox_id)s, %(consumer_group)s)
    on conflict do nothing
    returning group_id, outbox_id
)
insert into tide.bell (group_id, outbox_id, armed) select group_id, outbox_id, false from made

-- name: source_listen
-- What a source hears: the bells of every outbox of that database.
listen tide_outbox_notify

-- name: source_bell
-- Arms or silences the bell of our group, which no pipeline of that database shares.
update tide.bell b set armed = %(armed)s where b.group_id = %(group_id)s and b.armed <> %(armed)s

-- name: source_rung
-- Whether publishers ring at all: the same question as theirs in tide.outbox_asleep.
select exists (select from tide.scheduler s where s.seen_at > clock_timestamp() - interval '15 seconds')

-- name: source_offset
-- What was stored elsewhere is settled here, so that retention may remove it.
update tide.consumer_group g set offset_id = %(offset_id)s
 where g.group_id = %(group_id)s and g.offset_id < %(offset_id)s

-- Writing an inbox ------------------------------------------------------------------------------------------------

-- Arrays travel in binary, by the letter b of their placeholders: psycopg escapes each element of a text array by hand,
-- which costs more than all the rest. No percent sign here: a comment belongs to the statement before it.

-- name: inbox_write
-- Writes a batch of rows, those that are there already left out; returns how many were new.
select tide.inbox_write(%(inbox)s, %(event_ids)b::text[], %(event_types)b::text[], %(sources)b::text[],
           %(aggregate_ids)b::text[], %(event_sequences)b::bigint[], %(payloads)b::text[], %(headers)b::text[],
           %(trace_ids)b::text[])

-- name: api_listen
-- What the API hears: changed configurations.
listen tide_relay_config

-- name: api_look
-- After writing rows of which some were there already: which of them are new, and which are what is stored.
select is_new, is_same from tide.inbox_look(%(inbox)s, %(event_ids)b::text[], %(payloads)b::text[])

-- name: inbox_create
-- Makes an inbox, for a sink that is configured to.
select tide.inbox_create(%(inbox)s)

-- name: inbox_listen
-- Whoever works an inbox off hears of new messages.
listen tide_inbox

-- name: inbox_claim
-- Leases messages of an inbox to a worker.
select * from tide.inbox_claim(%(inbox)s, %(worker)s, %(batch_size)s::int, %(visibility_seconds)s::int)

-- name: inbox_mark_processed
-- Marks what the worker still holds; returns how many.
select tide.inbox_mark_processed(%(inbox)s, %(event_ids)s::text[], %(worker)s)

-- name: inbox_mark_failed
-- Counts a failure of a message that the worker still holds; returns what becomes of it.
select tide.inbox_mark_failed(%(inbox)s, %(event_id)s, %(error)s, %(worker)s)

-- name: inbox_release
-- Gives back what the worker has not begun.
select tide.inbox_release(%(inbox)s, %(event_ids)s::text[], %(worker)s)

-- name: receive_write
-- The same under the fence of a drain. No row: fenced, nothing was written.
with fence as materialized (
    select d.pipeline from tide.drain d
     where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s
       for update
)
select tide.inbox_write(%(inbox)s, %(event_ids)b::text[], %(event_types)b::text[], %(sources)b::text[],
           %(aggregate_ids)b::text[], %(event_sequences)b::bigint[], %(payloads)b::text[], %(headers)b::text[],
           %(trace_ids)b::text[])
  from fence

-- name: receive_dead_letters
-- Keeps messages that no inbox can hold, as they came; under the fence. One that comes again is kept once.
insert into tide.dead_letter (pipeline, inbox, event_id, subject, key, headers, body, code, reason)
select d.pipeline, %(inbox)s, r.event_id, r.subject, r.key, r.headers::jsonb, r.body, r.code, r.reason
  from tide.drain d,
       unnest(%(dead_ids)b::text[], %(dead_subjects)b::text[], %(dead_keys)b::text[], %(dead_headers)b::text[],
              %(dead_bodies)b::bytea[], %(dead_codes)b::text[], %(dead_reasons)b::text[])
       as r (event_id, subject, key, headers, body, code, reason)
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s
on conflict do nothing

-- name: receive_dead_letter
-- Keeps a line of `relay receive` that no inbox can hold. Nobody drains such a pipeline, so there is no fence.
insert into tide.dead_letter (pipeline, inbox, event_id, subject, body, code, reason)
values (%(pipeline)s, %(inbox)s, %(event_id)s, %(subject)s, %(body)s, %(code)s, %(reason)s)
on conflict do nothing

-- name: receive_positions
-- Where the source is resumed; under the fence.
insert into tide.position as p (pipeline, partition, position)
select d.pipeline, r.partition, r.position
  from tide.drain d, unnest(%(partitions)b::text[], %(positions)b::text[]) as r (partition, position)
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s
on conflict (pipeline, partition) do update set position = excluded.position where p.position <> excluded.position

-- name: receive_settle
-- Counts a batch that was received, and renews the lease. No row: fenced.
update tide.drain d
   set lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s),
       delivered = d.delivered + %(delivered)s, dead_letters = d.dead_letters + %(dead_letters)s
  from tide.pipeline p
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s and p.name = d.pipeline
returning p.revision

-- name: receive_look
-- The revision of the pipeline whose drain waits on its source, and whether dead letters are to be tried again. No row:
-- fenced, or the pipeline is gone.
select p.revision,
       exists (select from tide.dead_letter x
                where x.pipeline = d.pipeline and x.inbox is not null and x.retry_requested_at is not null) as redeliver
  from tide.drain d join tide.pipeline p on p.name = d.pipeline
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s

-- Gathering: one object of many batches -----------------------------------------------------------------------------

-- name: gather_look
-- How much waits up to the horizon that `outbox_horizon` left in this transaction: at most one object's worth.
-- end_id closes the object: the message that reaches max_rows or max_bytes, or the last that waits.
select count(*) as messages, coalesce(sum(m.size), 0)::bigint as bytes,
       extract(epoch from clock_timestamp() - min(m.created_at))::float8 as seconds, max(m.id) as end_id
  from (select id, size, created_at, sum(size) over (order by id rows unbounded preceding) - size as bytes_before
          from (select id, size, created_at from tide.message
                 where outbox_id = %(outbox_id)s and id > %(after)s and id <= current_setting('tide.horizon')::bigint
                 order by id limit %(max_rows)s) w) m
 where m.bytes_before < %(max_bytes)s

-- name: gather_plan
-- Commits between which messages the object in hand lies, `after:end`, so that it is made of the same messages again
-- after a crash; under the fence.
insert into tide.position as p (pipeline, partition, position)
select d.pipeline, 'object', %(plan)s
  from tide.drain d
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s
on conflict (pipeline, partition) do update set position = excluded.position
returning true

-- Ownership: what a scheduler does --------------------------------------------------------------------------------

-- name: listen
-- What a scheduler hears: bells, ends of drains, changed configurations, maintenance that is done.
listen tide_outbox_notify; listen tide_relay_drain; listen tide_relay_maintenance; listen tide_relay_config

-- name: scheduler_join
-- This scheduler is here.
insert into tide.scheduler (scheduler_id, relay_group_id, backend_pid, backend_start, host, pid, version)
select %(scheduler_id)s, %(relay_group_id)s, pid, backend_start, %(host)s, %(pid)s, %(version)s
  from pg_stat_activity where pid = pg_backend_pid()

-- name: scheduler_leave
-- This scheduler is going.
delete from tide.scheduler where scheduler_id = %(scheduler_id)s

-- name: scheduler_heartbeat
-- This scheduler is still here, in this process of the server. No row: another one took it for dead, so its session must be
-- given up.
update tide.scheduler set seen_at = clock_timestamp() where scheduler_id = %(scheduler_id)s returning pg_backend_pid() as backend_pid

-- name: scheduler_evict
-- Ends the sessions of schedulers that are frozen, so that others can own their pipelines, and forgets dead ones.
-- The start of another role's session is hidden from us: such a one counts as living while its process does.
with gone as (
    delete from tide.scheduler s
     where s.seen_at < clock_timestamp() - make_interval(secs => %(silent_seconds)s)
        or not exists (select from pg_stat_activity a
                        where a.pid = s.backend_pid and coalesce(a.backend_start = s.backend_start, true))
    returning s.scheduler_id, s.backend_pid, s.backend_start
)
select g.scheduler_id, pg_terminate_backend(a.pid)
  from gone g join pg_stat_activity a on a.pid = g.backend_pid and a.backend_start = g.backend_start

-- name: scheduler_alive
-- How many schedulers of this group share the work.
select count(*) from tide.scheduler where relay_group_id = %(relay_group_id)s

-- name: pipelines
-- Every pipeline, as configured.
select p.name, p.direction, p.enabled, p.config, p.revision, p.invalid_reason, g.group_id, o.outbox_id, o.name as outbox,
       i.name as inbox
  from tide.pipeline p
  left join tide.consumer_group g on g.group_id = p.group_id
  left join tide.outbox o on o.outbox_id = g.outbox_id
  left join tide.inbox i on i.inbox_id = p.inbox_id

-- name: pipeline_invalid
-- Records why a configuration cannot be run (null: it can), unless it has changed since it was read.
update tide.pipeline set invalid_reason = %(reason)s
 where name = %(name)s and revision = %(revision)s and invalid_reason is distinct from %(reason)s

-- name: pipelines_unowned
-- Which of these pipelines no living scheduler owns.
select d.pipeline
  from tide.drain d
 where d.pipeline = any(%(names)s) and not exists (select from tide.scheduler s where s.scheduler_id = d.owner)

-- name: drains_begun
-- Which of these drains a worker has begun, or are over.
select d.pipeline
  from unnest(%(names)s::text[], %(epochs)b::bigint[], %(numbers)b::bigint[]) as w (pipeline, epoch, number)
  join tide.drain d on d.pipeline = w.pipeline
 where d.epoch <> w.epoch or d.number >= w.number

-- name: ownership_take
-- Tries the advisory locks of pipelines on this session; returns the names that it got.
with tried as materialized (
    select t.name, pg_try_advisory_lock(t.key) as taken
      from unnest(%(names)s::text[], %(keys)b::bigint[]) as t (name, key)
), owned as (
    update tide.drain d set owner = %(scheduler_id)s from tried where d.pipeline = tried.name and tried.taken
)
select name from tried where taken

-- name: ownership_release
-- Lets go of pipelines, so that another scheduler can take them.
with released as (
    update tide.drain d set owner = null
      from unnest(%(names)s::text[]) as t (name)
     where d.pipeline = t.name and d.owner = %(scheduler_id)s
)
select pg_advisory_unlock(t.key) from unnest(%(keys)b::bigint[]) as t (key)

-- name: epoch_raise
-- Starts a new epoch for each pipeline whose drain, if any, no longer holds a lease: whatever was queued is stale then.
with wanted as (
    select d.pipeline, d.lease_until from tide.drain d
     where d.pipeline = any(%(names)s) and d.owner = %(scheduler_id)s
     order by d.pipeline
       for update
), raised as (
    update tide.drain d set epoch = nextval('tide.epochs'), number = 0, lease_until = null
      from wanted w
     where d.pipeline = w.pipeline and (w.lease_until is null or w.lease_until <= clock_timestamp())
    returning d.pipeline, d.epoch, d.retry_at
)
select w.pipeline, r.epoch, extract(epoch from r.retry_at - clock_timestamp())::float8 as retry_seconds,
       extract(epoch from w.lease_until - clock_timestamp())::float8 as lease_seconds
  from wanted w
  left join raised r on r.pipeline = w.pipeline

-- name: pipelines_behind
-- The timer's look, one for all: which of these pipelines have ids above their offset, or something to deliver once more.
-- Each outbox is asked once, however many pipelines read it: 1,000 pipelines of 100 outboxes cost 3 ms instead of 15.
with looked_at as materialized (
    select p.name, g.outbox_id, g.offset_id
      from tide.pipeline p join tide.consumer_group g on g.group_id = p.group_id
     where p.name = any(%(names)s)
), ends as materialized (
    select outbox_id, tide.outbox_last_id(outbox_id) as last_id from looked_at group by outbox_id
)
select l.name from looked_at l join ends e on e.outbox_id = l.outbox_id where e.last_id > l.offset_id
 union all
select n.name from unnest(%(names)s::text[]) as n (name)
 where exists (select from tide.dead_letter x where x.pipeline = n.name and x.retry_requested_at is not null)
    or exists (select from tide.replay r where r.pipeline = n.name and r.ended_at is null)

-- name: pipelines_lag
-- Lag in ids and in seconds, and the age of the oldest open publisher, of these pipelines; only of those that have any.
select p.name, tide.outbox_last_id(g.outbox_id) - g.offset_id as messages,
       extract(epoch from clock_timestamp() - oldest.created_at)::float8 as seconds,
       tide.outbox_oldest_publisher_seconds(g.outbox_id) as publisher_seconds
  from tide.pipeline p
  join tide.consumer_group g on g.group_id = p.group_id
  left join lateral (
        select m.created_at from tide.message m
         where m.outbox_id = g.outbox_id and m.id > g.offset_id order by m.id limit 1) oldest on true
 where p.name = any(%(names)s) and tide.outbox_last_id(g.outbox_id) > g.offset_id

-- name: outboxes
-- The outboxes whose partitions need to be extended.
select o.name from tide.outbox o where tide.outbox_needs_partition(o.outbox_id)

-- name: outbox_extend
-- Makes the next partitions of an outbox.
select tide.outbox_extend(%(name)s)

-- Maintenance -----------------------------------------------------------------------------------------------------

-- name: chore_take
-- The turn to look after the database: of all schedulers that ask, one gets it, and then nobody for so long.
update tide.chore set due_at = clock_timestamp() + make_interval(secs => %(interval_seconds)s)
 where name = 'maintenance'
   and (due_at <= clock_timestamp() or due_at > clock_timestamp() + make_interval(secs => %(interval_seconds)s))
returning true

-- name: holds
-- What consumer groups keep retention from removing, and only for some time yet; the first to end first.
select o.name as outbox, h.consumer_group, h.pipeline, h.state, h.messages, h.seconds_left, h.ending
  from tide.outbox o cross join lateral tide.outbox_holds(o.name) h
 where h.messages > 0 and h.seconds_left is not null
 order by h.seconds_left

-- name: retention_losses
-- What went unsettled within the last day.
select l.outbox, l.consumer_group, l.reason, sum(l.messages)::bigint as messages, min(l.first_id) as first_id,
       max(l.last_id) as last_id, max(l.lost_at) as lost_at
  from tide.retention_loss l
 where l.lost_at > clock_timestamp() - interval '1 day'
 group by l.outbox, l.consumer_group, l.reason
 order by l.outbox, l.consumer_group, l.reason

-- name: maintenance_outboxes
-- Every outbox.
select o.name from tide.outbox o

-- name: maintenance_inboxes
-- Every inbox.
select i.name from tide.inbox i

-- name: outbox_retain
-- Removes what is settled and old of one outbox.
select truncated, dropped, lost, busy, more, warning from tide.outbox_retain(%(name)s)

-- name: inbox_retain
-- Removes old rows of one inbox, at most so many.
select tide.inbox_retain(%(name)s, %(max_rows)s)

-- name: dead_letter_retain
-- Removes old dead letters, at most so many.
select tide.dead_letter_retain(%(max_rows)s)

-- name: config_history_retain
-- Removes old history of configurations, at most so many rows.
select tide.config_history_retain(%(max_rows)s)

-- name: consumers_reap
-- Removes dead consumers; what they hold goes to others.
select tide.consumers_reap()

-- name: maintenance_done
-- Tells all schedulers that a turn was taken, and that nothing was in its way.
select pg_notify('tide_relay_maintenance', '')

-- The command line ------------------------------------------------------------------------------------------------

-- name: outbox_create
-- Creates an outbox where it is missing. True if it did.
select tide.outbox_create_if_not_exists(%(outbox)s)

-- name: publish
-- Publishes one JSON text; returns its id.
select tide.outbox_publish(%(outbox)s, %(payload)s::jsonb, %(headers)s::jsonb, %(key)s)

-- name: publish_many
-- Publishes JSON texts, in their order; returns the ids.
select tide.outbox_publish_many(
    %(outbox)s, %(payloads)b::text[]::jsonb[], %(keys)b::text[], %(headers)b::text[]::jsonb[])

-- name: publish_one_try
-- Whether PostgreSQL takes these texts as JSON: fails if not.
select %(payload)s::jsonb, %(headers)s::jsonb

-- name: pipeline_list
-- Every pipeline for people, or only those of these names.
select p.name, p.direction, o.name as outbox, g.name as consumer_group, i.name as inbox, p.enabled, p.revision,
       p.invalid_reason, p.config, p.updated_at
  from tide.pipeline p
  left join tide.consumer_group g on g.group_id = p.group_id
  left join tide.outbox o on o.outbox_id = g.outbox_id
  left join tide.inbox i on i.inbox_id = p.inbox_id
 where %(names)s::text[] is null or p.name = any(%(names)s)
 order by p.name

-- After a restore to an earlier time ------------------------------------------------------------------------------

-- name: skip_outboxes
-- Every outbox.
select o.name from tide.outbox o order by o.name

-- name: skip_plan
-- The last id that an outbox gave, and the first after a skip.
select o.name as outbox, tide.outbox_last_id(o.outbox_id) as last_id, s.first_id
  from tide.outbox_skip_ids(%(outbox)s, %(margin)s, true) s (first_id) join tide.outbox o on o.name = %(outbox)s

-- name: skip_ids
-- Has an outbox skip ids; the first of the new ones.
select tide.outbox_skip_ids(%(outbox)s, %(margin)s) as first_id

-- name: skip_epochs
-- Has epochs and revisions skip.
select tide.relay_skip_epochs(%(margin)s)

-- name: table_route
-- Routes a table to an outbox; the outbox's name.
select tide.table_outbox_route(%(source)s::regclass, %(outbox)s, %(columns)s, %(headers)s, %(existing)s, %(existing_order)s)

-- name: pipeline_set_inbox
-- Creates or changes a reverse pipeline.
select tide.relay_set_inbox(%(name)s, %(inbox)s, %(config)s::jsonb)

-- name: pipeline_set
-- Creates or changes a forward pipeline. Without a group it keeps the one it has, and with it its offset.
select tide.relay_set_outbox(%(name)s, %(outbox)s,
           coalesce(%(group)s::text,
                    (select g.name
                       from tide.pipeline p
                       join tide.consumer_group g on g.group_id = p.group_id
                       join tide.outbox o on o.outbox_id = g.outbox_id
                      where p.name = %(name)s and o.name = %(outbox)s),
                    %(name)s),
           %(config)s::jsonb)

-- name: pipeline_enable
-- Lets a pipeline run.
select tide.relay_enable(%(name)s)

-- name: pipeline_disable
-- Stops a pipeline after the batch in hand.
select tide.relay_disable(%(name)s)

-- name: pipeline_delete
-- Removes a pipeline with its offset.
select tide.relay_delete(%(name)s)

-- name: dead_letter_list
-- Dead letters in the order of their ids, without what can be large.
select d.dead_letter_id, d.pipeline, coalesce(d.outbox || ':' || d.message_id, d.event_id) as message, d.code, d.reason,
       d.attempts, d.failed_at, d.retry_requested_at
  from tide.relay_dlq_list(%(pipeline)s::text, %(max_rows)s::int, %(after_id)s::bigint) d

-- name: dead_letter_show
-- One dead letter whole; JSON as PostgreSQL prints it, so that no number loses a digit.
select d.dead_letter_id, d.pipeline, d.outbox, d.message_id, d.inbox, d.event_id, d.subject, d.key,
       jsonb_pretty(d.headers) as headers, jsonb_pretty(d.payload) as payload, d.body, d.code, d.reason, d.attempts,
       d.published_at, d.first_failed_at, d.failed_at, d.retry_requested_at
  from tide.relay_dlq_list(null, 1, %(dead_letter_id)s::bigint - 1) d
 where d.dead_letter_id = %(dead_letter_id)s

-- name: dead_letter_retry
-- Has its pipeline deliver a dead letter once more.
select tide.relay_dlq_retry(%(dead_letter_id)s::bigint) as asked

-- name: dead_letter_retry_all
-- The same for all of a pipeline.
select tide.relay_dlq_retry(%(pipeline)s::text) as asked

-- name: dead_letter_discard
-- Forgets a dead letter.
select tide.relay_dlq_discard(%(dead_letter_id)s::bigint) as discarded

-- name: dead_letter_purge
-- Forgets those of a pipeline that were refused so long ago.
select tide.relay_dlq_purge(%(pipeline)s::text, %(older_than)s::interval) as purged

-- name: dead_letter_stats
-- How many there are, by pipeline and code.
select * from tide.relay_dlq_stats(%(pipeline)s::text)

-- name: replay_preview
-- What a replay would deliver.
select * from tide.relay_replay_preview(%(pipeline)s::text, %(from_id)s::bigint, %(to_id)s::bigint)

-- name: replay_ask
-- Has a pipeline deliver a range once more.
select tide.relay_replay(%(pipeline)s::text, %(from_id)s::bigint, %(to_id)s::bigint) as replay_id

-- name: replay_list
-- The replays of a pipeline, or of all.
select * from tide.relay_replays(%(pipeline)s::text)

-- name: replay_cancel
-- Ends a replay. False: it had ended.
select tide.relay_replay_cancel(%(replay_id)s::bigint) as was_open

-- name: history
-- The last changes of a pipeline, or of all, in their order.
select l.changed_at, l.pipeline, l.action, l.changed_by, l.program, l.old, l.new
  from (select h.*
          from tide.relay_config_history(%(pipeline)s::text) with ordinality
               as h (changed_at, pipeline, action, changed_by, program, old, new, number)
         order by h.number desc
         limit %(max_rows)s) l
 order by l.number

-- name: status_pipelines
-- Everything that tells how a pipeline is and why it does not move. Messages are counted up to count_limit.
select p.name, p.direction, p.enabled, p.invalid_reason, p.config ->> 'relay_group_id' as relay_group_id,
       p.config ->> 'sink_type' as sink_type, p.config ->> 'source_type' as source_type, i.name as inbox, o.name as outbox, o.enabled as outbox_enabled, g.name as consumer_group,
       g.offset_id, tide.outbox_last_id(g.outbox_id) as last_id, h.horizon, h.open_publishers,
       w.messages as waiting_messages, w.readable as readable_messages, coalesce(w.seconds, 0)::float8 as waiting_seconds,
       extract(epoch from d.lease_until - clock_timestamp())::float8 as lease_seconds, d.lease_until,
       extract(epoch from d.retry_at - clock_timestamp())::float8 as retry_seconds, d.retry_at,
       d.outcome, d.failures, d.error_code, d.error, d.error_at, d.ended_at, d.delivered, d.dead_letters,
       d.owner::text as owner, hold.seconds_left as hold_seconds
  from tide.pipeline p
  left join tide.drain d on d.pipeline = p.name
  left join tide.consumer_group g on g.group_id = p.group_id
  left join tide.outbox o on o.outbox_id = g.outbox_id
  left join tide.inbox i on i.inbox_id = p.inbox_id
  left join lateral tide.outbox_horizon(g.outbox_id) h on true
  left join lateral (
        select count(*) as messages, count(*) filter (where m.id <= h.horizon) as readable,
               extract(epoch from clock_timestamp() - min(m.created_at)) as seconds
          from (select m.id, m.created_at from tide.message m
                 where m.outbox_id = g.outbox_id and m.id > g.offset_id order by m.id limit %(count_limit)s) m) w on true
  left join lateral (
        select k.seconds_left
          from tide.outbox held cross join lateral tide.outbox_holds(held.name) k
         where held.outbox_id = g.outbox_id and k.pipeline = p.name and k.ending) hold on true
 order by p.name

-- name: status_publishers
-- The open transactions that hold a horizon, the oldest first. The class of the marks is that of tide.lock_class.
select o.name as outbox, l.pid, a.usename as role, a.application_name, a.state, x.gid,
       extract(epoch from clock_timestamp() - coalesce(a.xact_start, x.prepared))::float8 as open_seconds
  from tide.outbox o
  join pg_locks l on l.locktype = 'advisory' and l.objsubid = 2
       and l.classid::bigint = 1952670720 + mod(o.outbox_id, 1000000)
       and l.database = (select d.oid from pg_database d where d.datname = current_database())
  left join pg_stat_activity a on a.pid = l.pid
  left join pg_locks t on l.pid is null and t.locktype = 'transactionid' and t.virtualtransaction = l.virtualtransaction
  left join pg_prepared_xacts x on x.transaction = t.transactionid
 order by open_seconds desc nulls last, l.pid

-- name: status_schedulers
-- The schedulers, how long they have been silent, and whether their sessions live.
select s.scheduler_id::text, s.relay_group_id, s.host, s.pid, s.version,
       extract(epoch from clock_timestamp() - s.seen_at)::float8 as silent_seconds,
       exists (select from pg_stat_activity a
                where a.pid = s.backend_pid and coalesce(a.backend_start = s.backend_start, true)) as connected,
       (select count(*) from tide.drain d where d.owner = s.scheduler_id) as pipelines
  from tide.scheduler s
 order by s.host, s.pid

-- name: doctor_server
-- The server and the room in it, as this role sees them. Others' backend types may be hidden: they count as clients.
select current_setting('server_version_num')::int as version_number, current_setting('server_version') as version,
       pg_encoding_to_char(d.encoding) as encoding, current_user as role, current_database() as database,
       pg_backend_pid() as backend_pid, pg_is_in_recovery() as in_recovery,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0) as connection_slots,
       (select count(*) from pg_stat_activity a
         where a.datid is not null and coalesce(a.backend_type, 'client backend') = 'client backend') as connections,
       nullif(r.rolconnlimit, -1) as role_limit, nullif(d.datconnlimit, -1) as database_limit
  from pg_database d, pg_roles r
 where d.datname = current_database() and r.rolname = current_user

-- name: doctor_rights
-- What this role lacks of what tide.grant_relay gives. By object identity: names need rights to be looked up; so the
-- list is written out here, and a test holds it against tide.permission.
with tide as (select n.oid from pg_namespace n where n.nspname = 'tide')
select 'usage on schema tide' as lacking from tide where not has_schema_privilege(tide.oid, 'usage')
 union all
select w.privilege || ' on tide.' || c.relname
  from (values ('outbox', 'select'), ('message', 'select'), ('consumer_group', 'select'), ('consumer_group', 'update'),
               ('bell', 'select'), ('bell', 'update'), ('pipeline', 'select'), ('drain', 'select'), ('drain', 'update'),
               ('dead_letter', 'select'), ('dead_letter', 'insert'), ('dead_letter', 'update'), ('dead_letter', 'delete'),
               ('replay', 'select'), ('replay', 'update'), ('redelivery_waiting', 'select'), ('setting', 'select'),
               ('chore', 'select'), ('chore', 'update'), ('retention_loss', 'select'), ('hold', 'select'),
               ('inbox', 'select'), ('position', 'select'), ('position', 'insert'), ('position', 'update'), ('position', 'delete'),
               ('scheduler', 'select'), ('scheduler', 'insert'), ('scheduler', 'update'), ('scheduler', 'delete'), ('migration', 'select'),
               ('function_file', 'select')) as w (relation, privilege)
  join pg_class c on c.relname = w.relation and c.relnamespace = (select oid from tide)
 where not has_table_privilege(c.oid, w.privilege)
 union all
select 'update (invalid_reason) on tide.pipeline'
  from pg_class c
 where c.relname = 'pipeline' and c.relnamespace = (select oid from tide)
   and not has_column_privilege(c.oid, 'invalid_reason', 'update')
 union all
select 'usage on sequence tide.epochs'
  from pg_class c
 where c.relname = 'epochs' and c.relnamespace = (select oid from tide) and not has_sequence_privilege(c.oid, 'usage')
 union all
select 'execute on ' || f.oid::regprocedure
  from pg_proc f
 where f.pronamespace = (select oid from tide)
   and f.proname in ('outbox_horizon', 'outbox_last_id', 'outbox_needs_partition', 'outbox_extend',
                     'outbox_oldest_publisher_seconds', 'inbox_write', 'inbox_look', 'outbox_retain', 'outbox_holds',
                     'inbox_retain', 'dead_letter_retain', 'config_history_retain', 'consumers_reap')
   and not has_function_privilege(f.oid, 'execute')
