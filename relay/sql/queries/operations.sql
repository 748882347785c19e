-- What people ask and do.

-- Publishing and receiving -----------------------------------------------------------------------------------------

-- name: outbox_create
-- Creates an outbox where it is missing. True if it did.
select tide.outbox_create_if_not_exists(%(outbox)s)

-- name: outbox_ids
-- Every outbox, by name.
select o.outbox_id from tide.outbox o order by o.name

-- name: outbox_id
-- The outbox of this name.
select o.outbox_id from tide.outbox o where o.name = %(outbox)s

-- name: outbox_list
-- Those of these outboxes that hold messages. Reads no message.
select o.name as outbox, o.enabled, o.retention_hours, o.max_payload_bytes, o.created_at, tide.outbox_last_id(o.outbox_id) as last_id,
       (select count(*) from tide.consumer_group g where g.outbox_id = o.outbox_id and g.lane = 0) as consumer_groups,
       (select max(greatest(tide.outbox_last_id(o.outbox_id) - g.offset_id, 0)) from tide.consumer_group g
         where g.outbox_id = o.outbox_id) as lag
  from tide.outbox o
 where o.kind = 'messages' and o.outbox_id = any (%(outbox_ids)s::int[])
 order by o.name

-- name: outbox_show
-- What tide.outbox_status knows of an outbox.
select s.horizon, s.open_publishers, s.partitions, s.total_bytes from tide.outbox_status(%(outbox)s) s

-- name: outbox_show_groups
-- The consumer groups of an outbox, and the pipelines that have them; the one that is furthest behind first.
select g.name as consumer_group, p.name as pipeline, min(g.offset_id) as offset_id,
       greatest(tide.outbox_last_id(o.outbox_id) - min(g.offset_id), 0) as lag
  from tide.outbox o
  join tide.consumer_group g on g.outbox_id = o.outbox_id
  left join tide.pipeline p on p.group_id = g.head_id
 where o.name = %(outbox)s
 group by o.outbox_id, g.name, p.name
 order by 3, 1

-- name: outbox_limit
-- The largest message that an outbox takes.
select tide.outbox_limit(%(outbox)s)

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

-- name: receive_dead_letter
-- Keeps a line of `relay receive` that no inbox can hold. No worker drains such a pipeline, so there is no fence.
insert into tide.dead_letter (pipeline, inbox, event_id, subject, body, code, reason)
values (%(pipeline)s, %(inbox)s, %(event_id)s, %(subject)s, %(body)s, %(code)s, %(reason)s)
on conflict do nothing

-- Pipelines --------------------------------------------------------------------------------------------------------

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

-- name: doctor_broken
-- Enabled pipelines whose last drain failed in a way that does not recover automatically. As in tide.drain: a change of the pipeline
-- takes the retry time away.
select distinct on (p.name) p.name, d.error_code, d.error
  from tide.pipeline p join tide.drain d on d.pipeline = p.name
 where p.enabled and p.invalid_reason is null and d.outcome = 'failed' and d.needs_operator and d.retry_at is not null
 order by p.name, d.lane

-- name: pipeline_cautions
-- What sinks found out about promises that do not hold.
select s.pipeline, s.position as caution
  from tide.position s join tide.pipeline p on p.name = s.pipeline
 where p.direction = 'forward' and s.partition = 'caution' and s.position <> ''
 order by s.pipeline

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

-- name: pipeline_set_inbox
-- Creates or changes a reverse pipeline.
select tide.relay_set_inbox(%(name)s, %(inbox)s, %(config)s::jsonb)

-- name: pipeline_enable
-- Lets a pipeline run.
select tide.relay_enable(%(name)s)

-- name: pipeline_disable
-- Stops a pipeline after the batch in hand.
select tide.relay_disable(%(name)s)

-- name: pipeline_delete
-- Removes a pipeline with its offset.
select tide.relay_delete(%(name)s)

-- name: table_route
-- Routes a table to an outbox; the outbox's name.
select tide.table_outbox_route(%(source)s::regclass, %(outbox)s, %(columns)s, %(headers)s, %(existing)s, %(existing_order)s)

-- After a restore to an earlier time -------------------------------------------------------------------------------

-- name: skip_outboxes
-- Every outbox.
select o.name from tide.outbox o order by o.name

-- name: skip_plan
-- The last id that an outbox gave, the highest that is stored, and the first after a skip.
select o.name as outbox, tide.outbox_highest_id(o.outbox_id) as highest_id, tide.outbox_last_id(o.outbox_id) as last_id, s.first_id
  from tide.outbox_skip_ids(%(outbox)s, %(margin)s, true) s (first_id) join tide.outbox o on o.name = %(outbox)s

-- name: skip_ids
-- Has an outbox skip ids; the first of the new ones.
select tide.outbox_skip_ids(%(outbox)s, %(margin)s) as first_id

-- name: raise_sequences
-- Sets every other sequence that is behind what is stored above it.
select * from tide.relay_raise_sequences(%(dry_run)s)

-- name: skip_epochs
-- Has epochs and revisions skip.
select tide.relay_skip_epochs(%(margin)s)

-- name: renew_identity
-- Gives a copy of a database an identity of its own.
select tide.database_identity_renew()

-- Dead letters -----------------------------------------------------------------------------------------------------

-- name: dead_letter_list
-- Dead letters in the order of their ids, without what can be large.
select d.dead_letter_id, d.pipeline, coalesce(d.outbox || ':' || d.message_id, d.event_id) as message, d.code, d.reason,
       d.attempts, d.failed_at, d.retry_requested_at
  from tide.relay_dlq_list(%(pipeline)s::text, %(max_rows)s::int, %(after_id)s::bigint, %(code)s::text) d

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

-- Inboxes ----------------------------------------------------------------------------------------------------------

-- name: inbox_dead_numbers
-- The dead messages of these inboxes, or of all, after a name and so many of them: each is locked until the end of the statement.
select n.name, n.dead, n.oldest_dead_at from tide.inbox_dead_numbers(%(inboxes)s::text[], %(after_name)s, %(max_inboxes)s::int) n

-- name: inbox_list
-- How inboxes are made, those of these names.
select i.name as inbox, format('%%I.%%I', i.table_schema, i.table_name) as "table", i.max_retries, i.seq_col is not null as ordered,
       i.processed_retention_hours, i.dead_retention_hours
  from tide.inbox i
 where i.name = any (%(names)s)
 order by i.name

-- name: inbox_show_status
-- The numbers of one inbox, and its health.
select s.name as inbox, format('%%I.%%I', s.table_schema, s.table_name) as "table", h.found ->> 'status' as health,
       array(select jsonb_array_elements_text(h.found -> 'reasons')) as reasons, s.pending, s.claimed, s.retrying, s.processed, s.dead,
       (h.found ->> 'dead_last_5_minutes')::bigint as dead_last_5_minutes, s.oldest_pending_seconds,
       (h.found ->> 'processed_per_minute')::bigint as processed_per_minute, s.duplicates, s.total_bytes
  from tide.inbox_status(%(inbox)s) s, (select tide.inbox_health(%(inbox)s) as found) h

-- name: inbox_messages
-- Messages of an inbox in one state, newest first, or those of these ids; without what can be large.
select m.event_id, m.inbox_seq, m.state, m.event_type, m.aggregate_id, m.retry_count, m.received_at, m.failed_at, m.processed_at,
       m.available_at, m.claimed_by, m.error
  from tide.inbox_messages(%(inbox)s, %(state)s, %(event_ids)s::text[], %(since)s::timestamptz, %(until)s::timestamptz,
                           %(before_at)s::timestamptz, %(before_seq)s::bigint, %(max_rows)s::int) m

-- name: inbox_message
-- One message whole; JSON as PostgreSQL prints it, so that no number loses a digit.
select m.event_id, m.inbox_seq, m.state, m.event_type, m.aggregate_id, m.retry_count, m.received_at, m.failed_at, m.processed_at,
       m.available_at, m.claimed_by, m.error, m.source, m.event_sequence, m.trace_id, jsonb_pretty(m.headers) as headers,
       jsonb_pretty(m.payload) as payload
  from tide.inbox_messages(%(inbox)s, event_ids => array[%(event_id)s]::text[], max_rows => 1) m

-- name: inbox_replay
-- Makes these messages pending again, all or none.
select tide.inbox_replay(%(inbox)s, %(event_ids)s::text[])

-- name: inbox_replay_until
-- What dies from now on is not replayed: a replay of all comes to an end.
select coalesce(%(until)s::timestamptz, clock_timestamp())

-- name: inbox_replay_dead
-- Makes so many dead messages pending again, the oldest first.
select tide.inbox_replay_dead(%(inbox)s, %(since)s::timestamptz, %(until)s::timestamptz, %(max_messages)s::int)

-- Replays ----------------------------------------------------------------------------------------------------------

-- name: replay_preview
-- What a replay would deliver.
select * from tide.relay_replay_preview(%(pipeline)s::text, %(from_id)s::bigint, %(to_id)s::bigint)

-- name: replay_span
-- The ids of what was published in a time, and the oldest message that is kept.
select * from tide.relay_replay_span(%(pipeline)s::text, %(since)s::timestamptz, %(until)s::timestamptz)

-- name: replay_ask
-- Has a pipeline deliver a range once more.
select tide.relay_replay(%(pipeline)s::text, %(from_id)s::bigint, %(to_id)s::bigint) as replay_id

-- name: replay_list
-- The replays of a pipeline, or of all.
select * from tide.relay_replays(%(pipeline)s::text)

-- name: replay_cancel
-- Ends a replay. False: it had ended.
select tide.relay_replay_cancel(%(replay_id)s::bigint) as was_open

-- History ----------------------------------------------------------------------------------------------------------

-- name: history
-- The last changes of a pipeline, or of all, in their order.
select l.changed_at, l.pipeline, l.action, l.changed_by, l.program, l.old, l.new
  from (select h.*
          from tide.relay_config_history(%(pipeline)s::text) with ordinality
               as h (changed_at, pipeline, action, changed_by, program, old, new, number)
         order by h.number desc
         limit %(max_rows)s) l
 order by l.number

-- Status -----------------------------------------------------------------------------------------------------------

-- name: status_pipelines
-- Every pipeline, or only those of these names, and how its last drain ended; of several lanes the slowest. Reads no message. Dead
-- letters that exist now are counted up to a limit.
select p.name, p.direction, p.enabled, p.invalid_reason, p.config ->> 'relay_group_id' as relay_group_id,
       p.config ->> 'sink_type' as sink_type, p.config ->> 'source_type' as source_type, i.name as inbox,
       o.outbox_id, o.name as outbox, o.enabled as outbox_enabled, g.name as consumer_group, d.offset_id, e.lanes, d.lane,
       extract(epoch from d.lease_until - clock_timestamp())::float8 as lease_seconds, d.lease_until,
       extract(epoch from d.retry_at - clock_timestamp())::float8 as retry_seconds, d.retry_at,
       d.outcome, d.failures, d.error_code, d.error, d.error_at, d.needs_operator, d.ended_at, e.delivered,
       e.dead_letters as dead_letters_ever, d.owner::text as owner,
       tide.dead_letters_now(p.name, %(count_limit)s::int) as dead_letters
  from tide.pipeline p
  left join tide.consumer_group g on g.group_id = p.group_id
  left join lateral (select l.offset_id, n.* from tide.drain n left join tide.consumer_group l on l.head_id = p.group_id and l.lane = n.lane
                      where n.pipeline = p.name
                      order by l.offset_id, n.outcome is distinct from 'failed', n.lane limit 1) d on true
  left join lateral (select count(*) as lanes, sum(n.delivered)::bigint as delivered, sum(n.dead_letters)::bigint as dead_letters
                       from tide.drain n where n.pipeline = p.name) e on true
  left join tide.outbox o on o.outbox_id = g.outbox_id
  left join tide.inbox i on i.inbox_id = p.inbox_id
 where %(names)s::text[] is null or p.name = any(%(names)s)
 order by p.name

-- name: status_last_ids
-- The last id of each of these outboxes, asked once for each.
select o.outbox_id, tide.outbox_last_id(o.outbox_id) as last_id from unnest(%(outbox_ids)s::int[]) o (outbox_id)

-- name: status_horizons
-- The horizon of each of these outboxes, read once for each. What is readable must be read in a later statement.
select o.outbox_id, h.horizon
  from unnest(%(outbox_ids)s::int[]) o (outbox_id) cross join lateral tide.outbox_horizon(o.outbox_id) h

-- name: status_holds
-- Pipelines that do not run and whose messages in these outboxes retention may soon remove.
select h.pipeline, h.seconds_left
  from tide.outbox o cross join lateral tide.outbox_holds(o.name) h
 where o.outbox_id = any(%(outbox_ids)s) and h.ending and h.pipeline is not null

-- name: outbox_lag
-- What lies above each of these offsets of one outbox, counted up to count_limit; no row where there is nothing.
-- The outbox and the bounds are constants when this is planned: the planner sees the partitions between them, no others.
select w.offset_id, b.messages, b.first_id, b.seconds
  from unnest(%(offset_ids)s::bigint[]) w (offset_id)
  cross join lateral (
        select count(*) as messages, min(m.id) as first_id,
               extract(epoch from clock_timestamp() - min(m.created_at))::float8 as seconds
          from (select m.id, m.created_at from tide.message m
                 where m.outbox_id = %(outbox_id)s::int and m.id > w.offset_id
                   and m.id > %(lowest_id)s::bigint and m.id <= %(last_id)s::bigint
                 order by m.id limit %(count_limit)s) m) b
 where b.messages > 0

-- name: status_publishers
-- The open transactions that hold a horizon, the oldest first; and behind them the sessions that hold locks like a publisher's,
-- and do not publish: these hold back nothing.
select o.name as outbox, m.publishes, m.pid, a.usename as role, a.application_name, a.state, x.gid,
       extract(epoch from clock_timestamp() - coalesce(a.xact_start, x.prepared))::float8 as open_seconds
  from tide.outbox o
  join (select distinct class, publishes, pid, virtualtransaction from tide.mark) m on m.class = o.mark_class
  left join pg_stat_activity a on a.pid = m.pid
  left join pg_locks t on m.pid is null and t.locktype = 'transactionid' and t.virtualtransaction = m.virtualtransaction
  left join pg_prepared_xacts x on x.transaction = t.transactionid
 order by m.publishes desc, open_seconds desc nulls last, m.pid

-- name: status_strangers
-- Who holds the lock of one of these pipelines and is no scheduler. The start of another role's session is hidden from us.
select t.name as pipeline, l.pid, a.usename as role, a.application_name, x.gid
  from unnest(%(names)s::text[], %(keys)b::bigint[]) as t (name, key)
  join pg_locks l on l.locktype = 'advisory' and l.objsubid = 1 and l.granted
       and (l.classid::bigint << 32) | l.objid::bigint = t.key
       and l.database = (select d.oid from pg_database d where d.datname = current_database())
  left join pg_stat_activity a on a.pid = l.pid
  left join pg_locks p on l.pid is null and p.locktype = 'transactionid' and p.virtualtransaction = l.virtualtransaction
  left join pg_prepared_xacts x on x.transaction = p.transactionid
 where not exists (select from tide.scheduler s
                    where s.backend_pid = l.pid and coalesce(a.backend_start = s.backend_start, true))
 order by t.name, l.pid desc

-- name: status_schedulers
-- The schedulers, how long they have been silent, and whether their sessions live.
select s.scheduler_id::text, s.relay_group_id, s.host, s.pid, s.version, s.waiting, s.broker_trouble,
       extract(epoch from clock_timestamp() - s.seen_at)::float8 as silent_seconds,
       exists (select from pg_stat_activity a
                where a.pid = s.backend_pid and coalesce(a.backend_start = s.backend_start, true)) as connected,
       (select count(*) from tide.drain d where d.owner = s.scheduler_id) as pipelines
  from tide.scheduler s
 order by s.host, s.pid

-- name: status_processes
-- The processes of workers and of relay api that gave a sign of life lately.
select p.kind, p.host, p.pid, p.version, p.queues, p.lacking
  from tide.process p
 where p.seen_at > clock_timestamp() - make_interval(secs => %(silent_seconds)s)
 order by p.kind, p.host, p.pid

-- Doctor -----------------------------------------------------------------------------------------------------------

-- name: doctor_server
-- The server and the room in it, as this role sees them. Others' backend types may be hidden: they count as clients.
select current_setting('server_version_num')::int as version_number, current_setting('server_version') as version,
       pg_encoding_to_char(d.encoding) as encoding, current_user as role, current_database() as database,
       pg_backend_pid() as backend_pid, pg_is_in_recovery() as in_recovery,
       current_setting('transaction_read_only') = 'on' as read_only,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0) as connection_slots,
       (select count(*) from pg_stat_activity a
         where a.datid is not null and coalesce(a.backend_type, 'client backend') = 'client backend') as connections,
       nullif(r.rolconnlimit, -1) as role_limit, nullif(d.datconnlimit, -1) as database_limit
  from pg_database d, pg_roles r
 where d.datname = current_database() and r.rolname = current_user

-- name: doctor_partitions
-- Those of these outboxes whose partitions need to be extended.
select o.name
  from tide.outbox o
  join tide.outbox_last_ids(%(outbox_ids)s::int[]) e on e.outbox_id = o.outbox_id
 where o.partitions_end <= e.last_id + o.partition_size
 order by o.name

-- name: doctor_holds
-- What retention is about to remove from these outboxes though a consumer group has not settled it. Jobs are kept until they end.
select o.name as outbox, h.consumer_group, h.pipeline, h.state, h.messages, h.seconds_left
  from tide.outbox o cross join lateral tide.outbox_holds(o.name) h
 where o.outbox_id = any (%(outbox_ids)s::int[]) and o.kind = 'messages' and h.messages > 0 and h.ending
   -- Where every group has settled everything nothing is held: to see that costs a twentieth of asking.
   and exists (select from tide.consumer_group g
                where g.outbox_id = o.outbox_id
                  and (g.offset_id < tide.outbox_last_id(o.outbox_id)
                       or exists (select from tide.pipeline p join tide.replay r on r.pipeline = p.name
                                   where p.group_id = g.group_id and r.ended_at is null)))
 order by h.seconds_left, o.name

-- name: doctor_ids
-- Those of these outboxes whose next ids come again: something stored names ids above the last one that was taken.
with highest as materialized (select h.outbox_id, h.highest_id from tide.outbox_highest_ids(%(outbox_ids)s::int[]) h)
select o.name as outbox, e.last_id, h.highest_id, g.name as consumer_group, g.offset_id
  from highest h
  -- Read after all of those: what publishers take meanwhile is not ahead of anything.
  join tide.outbox_last_ids(array(select outbox_id from highest)) e on e.outbox_id = h.outbox_id and e.last_id < h.highest_id
  join tide.outbox o on o.outbox_id = h.outbox_id
  left join lateral (select g.name, g.offset_id from tide.consumer_group g
                      where g.outbox_id = h.outbox_id and g.offset_id > e.last_id order by g.offset_id desc limit 1) g on true
 order by o.name

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
               ('chore', 'select'), ('chore', 'update'), ('retention_loss', 'select'), ('hold', 'select'), ('mark', 'select'),
               ('inbox', 'select'), ('position', 'select'), ('position', 'insert'), ('position', 'update'), ('position', 'delete'),
               ('scheduler', 'select'), ('scheduler', 'insert'), ('scheduler', 'update'), ('scheduler', 'delete'), ('process', 'select'), ('migration', 'select'),
               ('function_file', 'select'), ('lease_memory', 'select'), ('lease_memory', 'insert'), ('job_queue', 'select'), ('job_lease', 'select'),
               ('job_worker', 'select'), ('job', 'select'),
               ('job_attempt', 'select'), ('job_dead', 'select'), ('job_schedule', 'select')) as w (relation, privilege)
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
   and f.proname in ('outbox_horizon', 'outbox_last_id', 'outbox_last_ids', 'bell_rings', 'message_size', 'outbox_needs_partition', 'outbox_extend',
                     'outbox_oldest_publisher_seconds', 'inbox_write', 'inbox_receive', 'inbox_move', 'inbox_look', 'outbox_retain', 'outbox_holds',
                     'inbox_retain', 'dead_letter_retain', 'config_history_retain', 'consumers_reap', 'database_identity',
                     'job_claim', 'job_finish', 'job_complete', 'job_release', 'job_rescue', 'job_worker_start', 'job_worker_beat',
                     'job_worker_stop', 'job_queue_create_if_not_exists', 'job_uuid', 'job_of_uuid', 'job_state', 'job_list', 'job_stats',
                     'job_unknown_handlers', 'job_queue_list', 'job_look', 'job_queue_behind', 'job_results', 'job_schedule_set', 'job_schedule_list',
                     'job_schedule_fire', 'outbox_highest_id', 'outbox_highest_ids', 'inbox_dead_numbers', 'see_anything', 'inbox_status',
                     'inbox_health', 'outbox_status', 'dead_letters_now', 'process_beat', 'process_stop', 'lane_of', 'lanes_change',
                     'stream_refresh', 'stream_prepare', 'stream_describe', 'stream_read', 'stream_keep', 'stream_keep_change', 'stream_failed', 'stream_behind', 'stream_clean', 'stream_tables',
                     'stream_begun', 'stream_ready', 'stream_numbers', 'health_check', 'stream_immediate_begin', 'stream_together', 'stream_together_end')
   and not has_function_privilege(f.oid, 'execute')

-- name: retention_losses
-- What went unsettled within the last day.
select l.outbox, l.consumer_group, l.reason, sum(l.messages)::bigint as messages, min(l.first_id) as first_id,
       max(l.last_id) as last_id, max(l.lost_at) as lost_at
  from tide.retention_loss l
 where l.lost_at > clock_timestamp() - interval '1 day'
 group by l.outbox, l.consumer_group, l.reason
 order by l.outbox, l.consumer_group, l.reason

-- Stream tables ----------------------------------------------------------------------------------------------------

-- name: stream_tables
-- The stream tables, and why each is behind its query.
select s.name, s.status, s.schedule, s.refresh_mode, s.effective_mode, s.tier, s.is_populated, s.behind, s.data_timestamp,
       s.staleness_seconds, s.consecutive_errors, s.last_error, s.why_full, s.outbox, s.refreshed_with, s.append_broken
  from tide.stream_tables() s

-- name: doctor_streams
-- Where the capture of changes is incomplete, and where many changes wait.
select h.check_name, h.detail from tide.health_check() h where h.severity <> 'OK' and h.check_name in ('needs_reinit', 'buffer_growth')

-- name: doctor_other_settings
-- Settings of pg_trickle that this database or roles in it have.
select distinct split_part(c.setting, '=', 1) as name
  from pg_db_role_setting s cross join lateral unnest(s.setconfig) c (setting)
 where s.setdatabase in (0, (select d.oid from pg_database d where d.datname = current_database())) and c.setting ^@ 'pg_trickle.'
 order by 1

-- name: stream_names
-- Names in the query of a stream table are looked up as in a session of this role.
set local search_path to default

-- name: stream_create
-- Creates a stream table.
select tide.create_stream_table(%(name)s, %(query)s, schedule => %(schedule)s, refresh_mode => %(refresh_mode)s,
                                initialize => %(initialize)s, tier => %(tier)s, append_only => %(append_only)s,
                                diamond_consistency => %(diamond_consistency)s, refresh_group => %(refresh_group)s)

-- name: stream_replace
-- Creates a stream table, or gives the one of that name this query and these options.
select tide.create_or_replace_stream_table(%(name)s, %(query)s, schedule => %(schedule)s, refresh_mode => %(refresh_mode)s,
                                           initialize => %(initialize)s, tier => %(tier)s, append_only => %(append_only)s,
                                           diamond_consistency => %(diamond_consistency)s, refresh_group => %(refresh_group)s)

-- name: stream_alter
-- Changes a stream table; null keeps what is.
select tide.alter_stream_table(%(name)s, query => %(query)s, schedule => %(schedule)s, refresh_mode => %(refresh_mode)s, tier => %(tier)s,
                               status => %(status)s, append_only => %(append_only)s, diamond_consistency => %(diamond_consistency)s,
                               refresh_group => %(refresh_group)s)

-- name: stream_wait_limits
-- A wait takes as long as it says, and not what other statements may take.
select set_config('statement_timeout', '0', true)

-- name: stream_wait
-- Waits until a stream table shows what was committed before.
select tide.wait_for_stream_table(%(name)s, make_interval(secs => %(seconds)s))

-- name: stream_forget
-- After a restore: what a stream table shows, and what was noted since, may be of different moments.
select tide.stream_forget()

-- name: stream_ask
-- Has the fleet refresh a stream table now.
select tide.refresh_stream_table(%(name)s)

-- name: stream_pause
-- Has a stream table not refreshed until it is resumed.
select tide.pause_stream_table(%(name)s)

-- name: stream_resume
-- Has a stream table refreshed again that was suspended.
select tide.resume_stream_table(%(name)s)

-- name: stream_outbox_enable
-- Has each refresh of a stream table publish what it changed; the name of the outbox.
select tide.stream_outbox_enable(%(name)s, %(outbox)s, %(retention_hours)s)

-- name: stream_outbox_disable
-- A stream table publishes no more.
select tide.stream_outbox_disable(%(name)s, %(drop_outbox)s)

-- name: stream_show
-- Everything about a stream table.
select s.name, s.status, s.schedule, s.refresh_mode, s.effective_mode, s.tier, s.is_populated, s.behind, s.data_timestamp,
       s.staleness_seconds, s.consecutive_errors, s.last_error, s.why_full, s.outbox, s.refreshed_with, s.append_broken, t.defining_query as query, t.created_at, t.last_refresh_at,
       (select coalesce(jsonb_agg(jsonb_build_object('name', z.source_table, 'pending_rows', z.pending_rows, 'buffer_bytes', z.buffer_bytes)
                                  order by z.source_table), '[]')
          from tide.change_buffer_sizes() z where z.stream_table = s.name) as sources,
       (select coalesce(jsonb_agg(to_jsonb(n) order by n.place), '[]') from tide.stream_nodes(%(name)s) n) as nodes
  from tide.recommend_refresh_mode(%(name)s) r
  join tide.pgt_stream_tables t on (t.pgt_schema, t.pgt_name) = (r.pgt_schema, r.pgt_name)
  join tide.stream_tables() s on s.stream_id = t.pgt_id

-- name: stream_explain
-- In which mode a stream table is refreshed, why, and which would suit it.
select e.configured_mode, e.effective_mode, e.downgrade_reason as why_full, e.strategies as used, r.recommended_mode, r.confidence,
       r.reason as recommended_because
  from tide.explain_refresh_mode(%(name)s) e cross join tide.recommend_refresh_mode(%(name)s) r

-- name: stream_strategies
-- How a stream table is refreshed, by the tables that changed together.
select s.changed, s.strategy, s.reason from tide.refresh_strategies(%(name)s) s

-- name: stream_history
-- The last refreshes of a stream table.
select h.refresh_id, h.start_time, h.end_time, h.duration_ms, h.action, h.status, h.strategy, h.reason, h.source_rows, h.rows_inserted,
       h.rows_updated, h.rows_deleted, h.error_message
  from tide.refresh_history(%(name)s, %(max_rows)s) h

-- name: snapshot_take
-- Copies the rows of a stream table to a new table; its name.
select tide.snapshot_stream_table(%(name)s, %(target)s)

-- name: snapshots
-- The snapshots of a stream table, or of all.
select s.snapshot_table, s.stream_table, s.row_count, s.size_bytes, s.created_at, s.data_timestamp from tide.list_snapshots(%(name)s) s

-- name: snapshot_restore
-- Makes the rows of a stream table those of a snapshot; why the next refresh computes everything.
select tide.restore_from_snapshot(%(name)s, %(source)s)

-- name: snapshot_drop
-- Drops a snapshot.
select tide.drop_snapshot(%(source)s)

-- name: stream_drop
-- Drops a stream table.
select tide.drop_stream_table(%(name)s)
