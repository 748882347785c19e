-- What a worker reads and writes under the lease of its drain.
--
-- Arrays are sent in binary (the letter b of a placeholder): psycopg escapes each element of a text array in Python,
-- which costs more than everything else.

-- The lease --------------------------------------------------------------------------------------------------------

-- name: durably
-- This transaction is as durable as the server is told to be. A settle that a crash took back would be delivered twice.
set local synchronous_commit to default

-- name: drain_begin
-- Takes the lease, if it is free, the drain is neither stale nor a duplicate and its pipeline is enabled. No row: drop it.
-- It does not wait for the disk: after a crash tide.lease_memory is empty, and nothing begins before a scheduler has given a lease to
-- each pipeline whose begin may be forgotten. How long such a lease has to be must not be forgotten, so a longer one is durable.
-- An epoch is of one lane alone, so a drain does not name its lane. Lane 0 is the one that redelivers.
update tide.drain d
   set number = %(number)s, lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s),
       lease_seconds = %(lease_seconds)s, lease_assumed = false
  from tide.drain before
  join tide.pipeline p on p.name = before.pipeline
  left join tide.consumer_group g on g.head_id = p.group_id and g.lane = before.lane
  left join tide.outbox o on o.outbox_id = g.outbox_id
  left join tide.inbox i on i.inbox_id = p.inbox_id
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number < %(number)s and d.lease_until is null
   and before.pipeline = d.pipeline and before.lane = d.lane and p.enabled and (g.lane = d.lane or p.group_id is null)
   and exists (select from tide.lease_memory)
returning p.direction, p.config, p.revision, d.failures, g.group_id, g.offset_id, o.outbox_id, o.name as outbox,
          i.name as inbox, d.lane, g.past,
          coalesce(g.lanes, (select count(*) from tide.drain n where n.pipeline = d.pipeline)) as lanes,
          (select coalesce(jsonb_object_agg(s.partition, s.position), '{}')
             from tide.position s where s.pipeline = d.pipeline) as positions,
          d.lane = 0 and (
              exists (select from tide.dead_letter x where x.pipeline = d.pipeline and x.retry_requested_at is not null)
              or exists (select from tide.replay r where r.pipeline = d.pipeline and r.ended_at is null)) as redeliver,
          set_config('synchronous_commit', case when before.lease_seconds >= %(lease_seconds)s then 'off'
                     else coalesce(nullif(current_setting('tide.durable', true), ''), current_setting('synchronous_commit')) end,
                     true) as durability

-- name: drain_end
-- Gives the lease back, says what became of the drain, and has the pipeline's owner look. No row: fenced. An assumed lease is given back
-- by the drain whose begin a crash took back: no other of its epoch has a higher number than the last that is known.
with ended as (
    update tide.drain
       set number = %(number)s, lease_until = null, lease_assumed = false, ended_at = clock_timestamp(), outcome = %(outcome)s, progressed = %(progressed)s,
           failures = %(failures)s, retry_at = clock_timestamp() + make_interval(secs => %(retry_seconds)s),
           error_code = %(error_code)s, error = %(error)s, needs_operator = %(needs_operator)s,
           error_at = case when %(error)s::text is null then null else clock_timestamp() end
     where pipeline = %(pipeline)s and epoch = %(epoch)s and (number = %(number)s or lease_assumed and number < %(number)s)
    returning pipeline, lane, name, outcome
), quiet as (
    -- Nothing a publisher could ring for: the retry, or the enabling, drains the pipeline, and then arms the bell again.
    update tide.bell b set armed = false
      from ended e
      join tide.pipeline p on p.name = e.pipeline
      join tide.consumer_group g on g.head_id = p.group_id and g.lane = e.lane
     where b.group_id = g.group_id and b.armed and (e.outcome = 'failed' or not p.enabled)
)
select pg_notify('tide_relay_drain', e.name) from ended e

-- Refreshing a stream table ----------------------------------------------------------------------------------------

-- name: lease_renew
-- Renews the lease from another session. No row: fenced.
update tide.drain set lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
 where pipeline = %(pipeline)s and epoch = %(epoch)s and number = %(number)s
returning pipeline

-- name: stream_prepare
-- Makes the capture of the sources of a stream table what is needed. Whether its query has to be analysed by this version.
select tide.stream_prepare(%(stream)s, %(version)s)

-- name: stream_describe
-- What PostgreSQL knows of a stream table and its query.
select tide.stream_describe(%(stream)s)

-- name: stream_read
-- How PostgreSQL reads a SELECT. Nothing is run.
select tide.stream_read(%(stream)s, %(text)s)

-- name: stream_keep
-- Keeps how a stream table is refreshed. No row: fenced.
select tide.stream_keep(%(stream)s, %(plan)s::jsonb)
  from tide.drain d
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s

-- name: stream_keep_change
-- Keeps how it is refreshed after these sources changed together. No row: fenced.
select tide.stream_keep_change(%(stream)s, %(sources)s::bigint[], %(strategy)s, %(form)s, %(text)s, %(reason)s, %(node)s)
  from tide.drain d
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s

-- name: stream_begin
-- Begins a transaction that refreshes: a statement takes as long as its query, longer than what else a worker waits for, and is planned
-- for the values at hand. Whether the pipeline is as it was when the drain began; if so, these are refreshed together. No row: fenced.
select p.revision = %(revision)s as is_same, set_config('statement_timeout', (%(seconds)s * 1000)::int::text, true),
       set_config('plan_cache_mode', 'force_custom_plan', true),
       case when p.revision = %(revision)s and cardinality(%(together)s::text[]) > 0 then tide.stream_together(%(together)s::text[]) end
  from tide.drain d join tide.pipeline p on p.name = d.pipeline
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s

-- name: stream_refresh
-- Makes a stream table equal to its query, as of the snapshot of this transaction. It is sent before it is known what stream_begin says:
-- nothing is done, and there is no row, where that says no.
select r.action, r.rows_inserted, r.rows_updated, r.rows_deleted, r.missing, r.strategy, r.reason
  from tide.drain d join tide.pipeline p on p.name = d.pipeline cross join lateral tide.stream_refresh(%(stream)s) r
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s and p.revision = %(revision)s

-- name: stream_deferred
-- Runs the deferred triggers of users, which would run at the end of the transaction.
set constraints all immediate

-- name: stream_end
-- Ends a transaction that refreshed these together. No row: fenced.
select tide.stream_together_end(%(together)s::text[])
  from tide.drain d
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s

-- name: stream_immediate_begin
-- Has the writers of its sources maintain a stream table of mode IMMEDIATE. No row: fenced, nothing was written.
select tide.stream_immediate_begin(%(stream)s)
  from tide.drain d
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s

-- name: stream_failed
-- Writes down that a refresh failed; true if the stream table is suspended now. No row: fenced.
select tide.stream_failed(%(stream)s, %(error)s)
  from tide.drain d
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s

-- Settling an outbox -----------------------------------------------------------------------------------------------

-- name: settle
-- Writes what became of a batch and renews the lease, as durably as the server is told to be: see `durably`. No row: fenced, nothing
-- was written.
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
select p.revision,
       set_config('synchronous_commit', coalesce(nullif(current_setting('tide.durable', true), ''), current_setting('synchronous_commit')), true)
  from fence join tide.pipeline p on p.name = fence.pipeline

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

-- name: inbox_move
-- Moves the next messages up to a horizon, or up to the one of `outbox_horizon`, into an inbox of this database, and settles
-- them. No row: fenced, nothing was written.
select m.revision, m.up_to_id, m.messages, m.last_id,
       to_char(least(greatest(m.first_at at time zone 'UTC', '0001-01-01'), '9999-12-31 23:59:59.999999'), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
  from tide.inbox_move(%(pipeline)s, %(epoch)s, %(number)s, %(lease_seconds)s, %(group_id)s, %(outbox_id)s, %(inbox)s,
                        %(after)s, %(horizon)s, %(max_messages)s, %(max_bytes)s) m

-- name: bell_arm
-- Asks publishers to NOTIFY. Writes nothing when the bell is armed already.
update tide.bell b set armed = true
  from tide.drain d
 where b.group_id = %(group_id)s and (not b.armed or not tide.bell_rings(b.outbox_id))
   and d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s

-- name: bell_disarm
-- The group is awake: publishers do not have to NOTIFY. Holds the fence, so that it cannot undo what the next drain arms.
with fence as (
    select d.pipeline from tide.drain d
     where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s
       for share
)
update tide.bell b set armed = false
  from fence
 where b.group_id = %(group_id)s and b.armed

-- Reading an outbox ------------------------------------------------------------------------------------------------
--
-- Times are read as the text that goes out, RFC 3339 in UTC, which has no infinity and years of four digits.

-- name: begin
-- A transaction whose statements have snapshots of their own, whatever the database's default.
begin isolation level read committed

-- name: begin_one_snapshot
-- A transaction all of whose statements see the same.
begin isolation level repeatable read

-- name: outbox_horizon
-- The horizon, kept in the session for `outbox_read`, which must be a later statement of the same transaction, with a
-- later snapshot. That is planned for its ids, so that it opens only the partitions that it needs.
select horizon, open_publishers, set_config('tide.horizon', horizon::text, false),
       set_config('plan_cache_mode', 'force_custom_plan', true)
  from tide.outbox_horizon(%(outbox_id)s)

-- name: outbox_read
-- The next messages up to a horizon that was read before, or that `outbox_horizon` left in this transaction: at most max_messages,
-- at most max_bytes unless one alone is larger.
select m.id, m.key, convert_to(m.payload::text, 'UTF8'), convert_to(m.headers::text, 'UTF8'),
       to_char(least(greatest(m.created_at at time zone 'UTC', '0001-01-01'), '9999-12-31 23:59:59.999999'), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
  from (select id, key, payload, headers, created_at,
               sum(tide.message_size(size, payload, headers, key))
                   over (order by id rows between unbounded preceding and 1 preceding) as bytes_before
          from tide.message
         where outbox_id = %(outbox_id)s and id > %(after)s
           and id <= coalesce(%(horizon)s::bigint, current_setting('tide.horizon')::bigint)
         order by id
         limit %(max_messages)s) m
 where coalesce(m.bytes_before, 0) < %(max_bytes)s
 order by m.id

-- name: outbox_read_lane
-- The same of one lane, among so many ids at most: other lanes may have them all. What was settled when the group was read in other
-- lanes is left out.
select m.id, m.key, convert_to(m.payload::text, 'UTF8'), convert_to(m.headers::text, 'UTF8'),
       to_char(least(greatest(m.created_at at time zone 'UTC', '0001-01-01'), '9999-12-31 23:59:59.999999'), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
  from (select id, key, payload, headers, created_at,
               sum(tide.message_size(size, payload, headers, key))
                   over (order by id rows between unbounded preceding and 1 preceding) as bytes_before
          from tide.message
         where outbox_id = %(outbox_id)s and id > %(after)s
           and id <= least(coalesce(%(horizon)s::bigint, current_setting('tide.horizon')::bigint), %(after)s::bigint + %(max_ids)s)
           and tide.lane_of(key, %(lanes)s) = %(lane)s
           and not exists (select from jsonb_to_recordset(%(past)s::jsonb) p (lanes int, offsets bigint[])
                            where id <= p.offsets[1 + tide.lane_of(key, p.lanes)])
         order by id
         limit %(max_messages)s) m
 where coalesce(m.bytes_before, 0) < %(max_bytes)s
 order by m.id

-- Redelivery: dead letters that are to be retried, and replays -----------------------------------------------------

-- name: redelivery_dead_letters
-- The next dead letters of one outbox to be sent again, at most max_messages, at most max_bytes unless one is larger.
select d.dead_letter_id, d.outbox, d.message_id, d.key, convert_to(d.payload, 'UTF8'), convert_to(d.headers::text, 'UTF8'),
       to_char(least(greatest(d.published_at at time zone 'UTC', '0001-01-01'), '9999-12-31 23:59:59.999999'), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
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
select d.dead_letter_id, d.event_id, d.body, convert_to(d.headers::text, 'UTF8'), d.key, coalesce(d.subject, '')
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
select m.id, m.key, convert_to(m.payload::text, 'UTF8'), convert_to(m.headers::text, 'UTF8'),
       to_char(least(greatest(m.created_at at time zone 'UTC', '0001-01-01'), '9999-12-31 23:59:59.999999'), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
  from (select id, key, payload, headers, created_at,
               sum(tide.message_size(size, payload, headers, key))
                   over (order by id rows between unbounded preceding and 1 preceding) as bytes_before
          from tide.message
         where outbox_id = %(outbox_id)s and id >= %(next_id)s and id <= %(to_id)s
         order by id
         limit %(max_messages)s) m
 where coalesce(m.bytes_before, 0) < %(max_bytes)s
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

-- Writing an inbox -------------------------------------------------------------------------------------------------

-- name: inbox_write
-- Writes a batch of rows, those that are there already left out; returns how many were new.
select tide.inbox_write(%(inbox)s, %(event_ids)b::text[], %(event_types)b::text[], %(sources)b::text[],
           %(aggregate_ids)b::text[], %(event_sequences)b::bigint[], %(payloads)b::text[], %(headers)b::text[],
           %(trace_ids)b::text[])

-- name: receive_batch
-- Writes a batch of rows and where the source is resumed, counts it and renews the lease; how many rows were new. No row:
-- fenced, nothing was written.
select r.revision, r.new_rows
  from tide.inbox_receive(%(pipeline)s, %(epoch)s, %(number)s, %(lease_seconds)s, %(delivered)s, %(dead_letters)s,
           %(partitions)b::text[], %(positions)b::text[], %(inbox)s, %(event_ids)b::text[], %(event_types)b::text[],
           %(sources)b::text[], %(aggregate_ids)b::text[], %(event_sequences)b::bigint[], %(payloads)b::text[],
           %(headers)b::text[], %(trace_ids)b::text[]) r

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
-- The revision of the pipeline whose drain waits on its source, and whether dead letters are to be retried. No row:
-- fenced, or the pipeline is gone.
select p.revision,
       exists (select from tide.dead_letter x
                where x.pipeline = d.pipeline and x.inbox is not null and x.retry_requested_at is not null) as redeliver
  from tide.drain d join tide.pipeline p on p.name = d.pipeline
 where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number = %(number)s

-- Objects made of many batches -------------------------------------------------------------------------------------

-- name: gather_look
-- How much waits up to the horizon that `outbox_horizon` left in this transaction: at most one object's worth.
-- end_id closes the object: the message that reaches max_rows or max_bytes, or the last that waits.
select count(*) as messages, coalesce(sum(m.size), 0)::bigint as bytes,
       extract(epoch from clock_timestamp() - min(m.created_at))::float8 as seconds, max(m.id) as end_id
  from (select id, size, created_at, sum(size) over (order by id rows unbounded preceding) - size as bytes_before
          from (select id, tide.message_size(size, payload, headers, key) as size, created_at from tide.message
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
