-- The statements of a scheduler, which has one session.

-- Membership -------------------------------------------------------------------------------------------------------

-- name: listen
-- What a scheduler hears: bells, ends of drains, changed configurations. Anyone who can connect can send them.
listen tide_outbox_notify; listen tide_relay_drain; listen tide_relay_config

-- name: scheduler_join
-- This scheduler is here.
insert into tide.scheduler (scheduler_id, relay_group_id, backend_pid, backend_start, host, pid, version)
select %(scheduler_id)s, %(relay_group_id)s, pid, backend_start, %(host)s, %(pid)s, %(version)s
  from pg_stat_activity where pid = pg_backend_pid()

-- name: scheduler_leave
-- This scheduler is going.
delete from tide.scheduler where scheduler_id = %(scheduler_id)s

-- name: scheduler_heartbeat
-- This scheduler is still here, in this process of the server. No row: another one took it for dead, so its session must
-- end.
update tide.scheduler set seen_at = clock_timestamp(), waiting = %(waiting)s::jsonb, broker_trouble = %(trouble)s
 where scheduler_id = %(scheduler_id)s returning pg_backend_pid() as backend_pid, clock_timestamp() as now

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

-- Leases after a crash ----------------------------------------------------------------------------------------------

-- name: leases_whole
-- Whether the server remembers every lease: see tide.lease_memory.
select exists (select from tide.lease_memory)

-- name: leases_unsure
-- Lanes of forward pipelines that may be in a drain: those that may have something to deliver. After a crash a sequence is ahead of its
-- ids, so only the messages tell; those of other lanes count too, as a lease too many only waits.
select d.name, g.outbox_id, g.offset_id, exists (select from tide.redelivery_waiting r where r.pipeline = p.name) as redelivers
  from tide.pipeline p
  join tide.drain d on d.pipeline = p.name
  join tide.consumer_group g on g.head_id = p.group_id and g.lane = d.lane
 where p.direction = 'forward'
   and (tide.outbox_last_id(g.outbox_id) > g.offset_id or exists (select from tide.redelivery_waiting r where r.pipeline = p.name))

-- name: messages_after
-- Whether an outbox has a message above an id.
select exists (select from tide.message m where m.outbox_id = %(outbox_id)s and m.id > %(after)s)

-- name: leases_remember
-- Gives these, by the names of their drains, the lease that they may have had, and lets drains begin; unless another scheduler has
-- done so. A lease that is known may be of the drain before, and end too early.
with whole as (
    insert into tide.lease_memory default values on conflict do nothing returning is_whole
)
update tide.drain d
   set lease_until = greatest(d.lease_until, clock_timestamp() + make_interval(secs => d.lease_seconds)), lease_assumed = true
  from whole
 where d.name = any(%(names)s)
returning d.name

-- Ownership --------------------------------------------------------------------------------------------------------

-- name: pipeline_buckets
-- Of each bucket of pipelines: a number that is another one if any of them was created, changed or deleted. Compared within one
-- session only. No cursor over revisions: a slow transaction commits one below it.
select hashtext(p.name) & 255 as bucket, count(*) as pipelines,
       bit_xor(hashint8extended(p.revision, (p.invalid_reason is null)::int::bigint)) as revisions
  from tide.pipeline p
 group by 1

-- name: pipeline_revisions
-- The pipelines in these buckets, without their configurations.
select p.name, hashtext(p.name) & 255 as bucket, p.revision, p.invalid_reason is not null as is_invalid
  from tide.pipeline p
 where hashtext(p.name) & 255 = any(%(buckets)s)

-- name: pipeline_configurations
-- These pipelines, as configured; as text, because jsonb can hold what its reader cannot.
select p.name, hashtext(p.name) & 255 as bucket, p.direction, p.enabled, p.config::text as config, p.revision, p.invalid_reason,
       o.name as outbox
  from tide.pipeline p
  left join tide.consumer_group g on g.group_id = p.group_id
  left join tide.outbox o on o.outbox_id = g.outbox_id
 where p.name = any(%(names)s)

-- name: pipeline_invalid
-- Records why a configuration cannot be run (null: it can), unless it has changed since it was read.
update tide.pipeline set invalid_reason = %(reason)s
 where name = %(name)s and revision = %(revision)s and invalid_reason is distinct from %(reason)s

-- name: pipelines_unowned
-- Which of these pipelines no living scheduler owns.
select d.name
  from tide.drain d
 where d.name = any(%(names)s) and not exists (select from tide.scheduler s where s.scheduler_id = d.owner)

-- name: drains_look
-- The last drain of each of these pipelines: whether it is over, and what became of it. The notification of its end tells
-- nothing but the name.
select d.name, d.epoch, d.number, d.lease_until is null as is_over, d.outcome, d.progressed, d.needs_operator,
       extract(epoch from d.retry_at - clock_timestamp())::float8 as retry_seconds
  from tide.drain d
 where d.name = any(%(names)s)

-- name: drains_begun
-- Which of these drains a worker has begun, or are over.
select d.name
  from unnest(%(names)s::text[], %(epochs)b::bigint[], %(numbers)b::bigint[]) as w (name, epoch, number)
  join tide.drain d on d.name = w.name
 where d.epoch <> w.epoch or d.number >= w.number

-- name: slots_take
-- Tries the advisory locks of slots on this session, one after the other, until those that it got have so many pipelines; returns
-- their keys. Each is tried once: the planner does not take a volatile function out of its subquery.
with recursive tried (number, pipelines, key, taken) as (
    select 0, 0, null::bigint, false
     union all
    select t.number + 1, t.pipelines + case when l.taken then (%(weights)b::int[])[t.number + 1] else 0 end, k.key, l.taken
      from tried t
      cross join lateral (select (%(keys)b::bigint[])[t.number + 1] as key offset 0) k
      cross join lateral (select pg_try_advisory_lock(k.key) as taken offset 0) l
     where t.number < cardinality(%(keys)b::bigint[]) and t.pipelines < %(pipelines)s
)
select key from tried where taken

-- name: refresh_slots_take
-- Tries advisory locks on this session until it got so many: the slots for refreshes at once of the schedulers of a group. First a
-- row with the limit alone. Without a limit (0) the slots have no lock.
with recursive limited as (
    select s.value::int as refreshes from tide.setting s where s.name = 'stream_max_concurrent_refreshes'
), free as materialized (
    select row_number() over () as number, k.key
      from limited l
     cross join lateral generate_series(1, case when l.refreshes = 0 then %(most)s else l.refreshes end) i
     cross join lateral (select case when l.refreshes > 0 then hashtextextended(format('tide-relay refresh %%s %%s', %(group)s::text, i), 0) end) k (key)
     where k.key is null or k.key <> all (%(held)b::bigint[])
), tried (number, got, key, taken) as (
    select 0::bigint, 0, null::bigint, false
     union all
    select f.number, t.got + l.taken::int, f.key, l.taken
      from tried t join free f on f.number = t.number + 1
     cross join lateral (select f.key is null or pg_try_advisory_lock(f.key) as taken offset 0) l
     where t.got < %(most)s
)
select l.refreshes, t.key, t.taken from tried t cross join limited l where t.taken or t.number = 0 order by t.number

-- name: slots_release
-- Lets go of slots, so that other schedulers can take them.
select pg_advisory_unlock(t.key) from unnest(%(keys)b::bigint[]) as t (key)

-- name: pipelines_adopt
-- Owns pipelines whose slot is held; returns the names. Not one that has changed since it was read: it may lie in another slot.
update tide.drain d set owner = %(scheduler_id)s
  from unnest(%(names)s::text[], %(pipelines)s::text[], %(revisions)b::bigint[]) as t (name, pipeline, revision)
  join tide.pipeline p on p.name = t.pipeline and p.revision = t.revision
 where d.name = t.name
returning d.name

-- name: pipelines_release
-- No longer owns pipelines. Before their slots are released.
update tide.drain d set owner = null
 where d.name = any(%(names)s) and d.owner = %(scheduler_id)s

-- name: epoch_raise
-- Starts a new epoch for each pipeline whose drain, if any, no longer holds a lease: whatever was queued is stale then. Not where its
-- pipeline is to have another number of lanes, which has to be changed first.
with wanted as (
    select d.name, d.lease_until,
           (select count(*) from tide.drain n where n.pipeline = d.pipeline) <> t.lanes or coalesce(g.lanes <> t.lanes, false) as divides
      from unnest(%(names)s::text[], %(lanes)s::int[]) as t (name, lanes)
      join tide.drain d on d.name = t.name
      join tide.pipeline p on p.name = d.pipeline
      left join tide.consumer_group g on g.group_id = p.group_id
     where d.owner = %(scheduler_id)s
     order by d.name
       for update of d
), raised as (
    update tide.drain d set epoch = nextval('tide.epochs'), number = 0, lease_until = null, lease_assumed = false
      from wanted w
     where d.name = w.name and not w.divides and (w.lease_until is null or w.lease_until <= clock_timestamp())
    returning d.name, d.epoch, d.retry_at
)
select w.name, r.epoch, extract(epoch from r.retry_at - clock_timestamp())::float8 as retry_seconds,
       extract(epoch from w.lease_until - clock_timestamp())::float8 as lease_seconds, w.divides
  from wanted w
  left join raised r on r.name = w.name

-- name: lanes_change
-- Gives a pipeline that we own so many lanes, unless one of those before has a lease still.
select tide.lanes_change(%(pipeline)s, %(scheduler_id)s, %(lanes)s::int) as changed

-- name: bell_silence
-- A drain that will answer waits in the queue, and has not begun: publishers do not have to ring meanwhile. Holds the fence, so
-- that the drain begins, and arms the bell again, only after this.
with fence as (
    select d.pipeline, d.lane from tide.drain d
     where d.pipeline = %(pipeline)s and d.epoch = %(epoch)s and d.number < %(number)s and d.owner = %(scheduler_id)s
       for share
)
update tide.bell b set armed = false
  from fence
  join tide.pipeline p on p.name = fence.pipeline
  join tide.consumer_group g on g.head_id = p.group_id and g.lane = fence.lane
 where b.group_id = g.group_id and b.armed

-- name: pipelines_behind
-- The timer's look, one for all: which of these pipelines have ids above their offset, or something to deliver once more;
-- jobs that no process has claimed; or a query whose result may have changed.
-- Each outbox is asked once, however many pipelines read it: 1,000 pipelines of 100 outboxes cost 3 ms instead of 15.
with looked_at as materialized (
    select d.name, g.outbox_id, g.offset_id
      from tide.drain d
      join tide.pipeline p on p.name = d.pipeline
      join tide.consumer_group g on g.head_id = p.group_id and g.lane = d.lane
     where d.name = any(%(names)s) and p.direction <> 'jobs'
), ends as materialized (
    select e.outbox_id, e.last_id from tide.outbox_last_ids(array(select distinct outbox_id from looked_at)) e
)
select l.name from looked_at l join ends e on e.outbox_id = l.outbox_id where e.last_id > l.offset_id
 union all
select p.name
  from tide.pipeline p join tide.consumer_group g on g.group_id = p.group_id
 where p.name = any(%(names)s) and p.direction = 'jobs' and tide.job_queue_behind(g.outbox_id)
 union all
select s.pipeline from tide.stream_ready(%(names)s::text[]) s (pipeline)
 union all
select n.name from unnest(%(names)s::text[]) as n (name)
 where exists (select from tide.dead_letter x where x.pipeline = n.name and x.retry_requested_at is not null)
    or exists (select from tide.replay r where r.pipeline = n.name and r.ended_at is null)

-- name: pipelines_asleep
-- Which of these pipelines sleep already: their last drain had this configuration and found nothing, their bell is armed, and
-- there is nothing to deliver. A publisher who saw the bell silent, or no scheduler, has had its mark since before: either the
-- mark is there still, or the last id, which is read after the marks, is above the offset. All others ring.
with calm as materialized (
    select d.name, g.outbox_id, g.offset_id
      from tide.drain d
      join tide.pipeline p on p.name = d.pipeline
      join tide.consumer_group g on g.head_id = p.group_id and g.lane = d.lane
      join tide.bell b on b.group_id = g.group_id
      join tide.outbox o on o.outbox_id = g.outbox_id
     where d.name = any(%(names)s) and p.direction = 'forward' and d.outcome = 'idle' and d.ended_at > p.updated_at and b.armed
       and tide.bell_rings(g.outbox_id)
       and o.mark_class not in (select m.class from tide.mark m)
       and not exists (select from tide.redelivery_waiting r where r.pipeline = d.name)
), ends as materialized (
    select e.outbox_id, e.last_id from tide.outbox_last_ids(array(select distinct outbox_id from calm)) e
)
select c.name from calm c join ends e on e.outbox_id = c.outbox_id where e.last_id <= c.offset_id

-- name: refreshes_begun
-- Stream tables that wait for their schedule, and how long ago their last refresh began.
select b.pipeline, b.seconds from tide.stream_begun(%(names)s::text[]) b

-- Measuring --------------------------------------------------------------------------------------------------------

-- name: pipelines_lag
-- Those of these pipelines whose offset is below the last id of their outbox. Asks each outbox once, and reads no message.
-- Not queues of jobs: their group follows later, for retention; see job_numbers.
with measured as materialized (
    select d.name, g.outbox_id, g.offset_id
      from tide.drain d
      join tide.pipeline p on p.name = d.pipeline
      join tide.consumer_group g on g.head_id = p.group_id and g.lane = d.lane
     where d.name = any(%(names)s) and p.direction <> 'jobs'
), ends as materialized (
    select e.outbox_id, e.last_id from tide.outbox_last_ids(array(select distinct outbox_id from measured)) e
)
select m.name, m.outbox_id, m.offset_id, e.last_id
  from measured m join ends e on e.outbox_id = m.outbox_id
 where e.last_id > m.offset_id

-- name: outbox_page_ahead
-- The outboxes after one, so many of them: the last of them (null: there is none), how many, and those of which a group passes over
-- new messages, because its offset lies above the last id.
with page as materialized (
    select o.outbox_id, o.name from tide.outbox o where o.outbox_id > %(after_id)s order by o.outbox_id limit %(max_outboxes)s
)
select max(p.outbox_id) as last_id, count(*) as outboxes,
       coalesce(array_agg(p.name) filter (where exists (
           select from tide.consumer_group g where g.outbox_id = p.outbox_id and g.offset_id > e.last_id)), '{}') as ahead
  from page p
  join tide.outbox_last_ids(array(select outbox_id from page)) e on e.outbox_id = p.outbox_id

-- name: offsets_ahead
-- Consumer groups of these outboxes that pass over new messages.
select o.name as outbox, g.name as consumer_group, max(g.offset_id) as offset_id, tide.outbox_last_id(o.outbox_id) as last_id
  from tide.outbox o
  join tide.consumer_group g on g.outbox_id = o.outbox_id
 where o.name = any(%(names)s)
 group by o.outbox_id, g.name
having max(g.offset_id) > tide.outbox_last_id(o.outbox_id)
 order by 1, 2

-- name: publisher_ages
-- How long the oldest open publisher has been open, for those of these outboxes that have one. The marks are read once to
-- find them, not once for each outbox.
with marked as materialized (select distinct m.class from tide.mark m where m.publishes)
select o.outbox_id, tide.outbox_oldest_publisher_seconds(o.outbox_id) as seconds
  from unnest(%(outbox_ids)s::int[]) o (outbox_id)
 where 1952670720 + mod(o.outbox_id, 1000000) in (select m.class from marked m)

-- name: outbox_page_unsettled
-- The outboxes after one, so many of them: the last of them (null: there is none), how many, and those in which a group may hold
-- something.
with page as materialized (
    select o.outbox_id, o.name from tide.outbox o where o.outbox_id > %(after_id)s order by o.outbox_id limit %(max_outboxes)s
)
select max(p.outbox_id) as last_id, count(*) as outboxes,
       coalesce(array_agg(p.name) filter (where exists (
           select from tide.consumer_group g
            where g.outbox_id = p.outbox_id
              and (g.offset_id < e.last_id
                   or exists (select from tide.pipeline i join tide.replay r on r.pipeline = i.name
                               where i.group_id = g.group_id and r.ended_at is null)))), '{}') as unsettled
  from page p
  join tide.outbox_last_ids(array(select outbox_id from page)) e on e.outbox_id = p.outbox_id

-- name: holds
-- What consumer groups keep retention from removing in these outboxes, and only for some time yet.
select u.name as outbox, h.consumer_group, h.pipeline, h.state, h.messages, h.seconds_left, h.ending
  from unnest(%(names)s::text[]) u (name)
  join tide.outbox o on o.name = u.name
  cross join lateral tide.outbox_holds(o.name) h
 where h.messages > 0 and h.seconds_left is not null

-- name: job_numbers
-- How many jobs of these queues are in which state. Counts no log.
select q.name as queue, n.due, n.scheduled, n.leased, n.dead, n.oldest_due_seconds, l.gaps
  from tide.job_queue q cross join lateral tide.job_stats(q.name) n cross join lateral tide.job_look(q.outbox_id) l
 where q.name = any(%(queues)s::text[])

-- name: inbox_dead_page
-- The dead messages of the inboxes after a name, so many of them.
select n.name, n.dead from tide.inbox_dead_numbers(after_name => %(after_name)s, max_inboxes => %(max_inboxes)s::int) n

-- name: stream_numbers
-- How stale the stream tables after a pipeline are, and whether their refreshes fail; so many of them.
select n.* from tide.stream_numbers(%(after_pipeline)s, %(max_streams)s) n

-- name: maintenance_age
-- How long ago workers last completed a turn of maintenance.
select extract(epoch from clock_timestamp() - done_at)::float8 from tide.chore where name = 'maintenance'

-- Chores -----------------------------------------------------------------------------------------------------------

-- name: jobs_rescue
-- The jobs of workers that gave no sign of life for so long run again, or are dead.
select tide.job_rescue(%(silent_seconds)s)

-- name: schedules_due
-- The schedules of these queues whose time has come, or is not known yet, and the time here.
select s.schedule, q.name as queue, s.cron, s.time_zone, s.missed, s.next_at, clock_timestamp() as now
  from tide.job_schedule s
  join tide.job_queue q on q.outbox_id = s.outbox_id
 where q.name = any(%(queues)s::text[]) and s.enabled and s.invalid_reason is null
   and (s.next_at is null or s.next_at <= clock_timestamp())
 order by s.next_at nulls first, s.schedule
 limit 1000

-- name: schedule_fire
-- Enqueues what is due and sets the next time, if no one else has: see tide.job_schedule_fire.
select tide.job_schedule_fire(%(schedule)s, %(seen_at)s, %(next_at)s, %(ticks)s::timestamptz[], %(reason)s)

-- name: outbox_page
-- The outboxes after one, so many of them: the last of them (null: there is none), how many, and those whose partitions need to be
-- extended.
with page as materialized (
    select o.outbox_id, o.name, o.partitions_end, o.partition_size
      from tide.outbox o where o.outbox_id > %(after_id)s order by o.outbox_id limit %(max_outboxes)s
)
select max(p.outbox_id) as last_id, count(*) as outboxes,
       coalesce(array_agg(p.name) filter (where p.partitions_end <= e.last_id + p.partition_size), '{}') as needing
  from page p
  join tide.outbox_last_ids(array(select outbox_id from page)) e on e.outbox_id = p.outbox_id

-- name: outboxes_needing
-- Those of these outboxes whose partitions need to be extended.
select o.name
  from tide.outbox o
  join tide.outbox_last_ids(array(select outbox_id from tide.outbox where name = any(%(names)s))) e on e.outbox_id = o.outbox_id
 where o.partitions_end <= e.last_id + o.partition_size

-- name: outbox_extend
-- Makes the next partitions of an outbox, if it is there still.
select tide.outbox_extend(o.name) from tide.outbox o where o.name = %(name)s

-- name: chore_take
-- The turn to look after the database: of all schedulers that ask, one gets it, and then none for so long.
update tide.chore set due_at = clock_timestamp() + make_interval(secs => %(interval_seconds)s), asked = true
 where name = 'maintenance'
   and (due_at <= clock_timestamp() or due_at > clock_timestamp() + make_interval(secs => %(interval_seconds)s))
returning true
