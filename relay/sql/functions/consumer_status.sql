-- Consumers that died, and how far each group is behind.

-- Since when a consumer must have been seen to count as alive; 0 hours: none ever counts as dead.
create or replace function tide.consumer_alive_since() returns timestamptz
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(clock_timestamp() - make_interval(hours => nullif(tide.setting_number('consumer_dead_threshold_hours'), 0)),
                    '-infinity');
end;

create or replace function tide.consumers_reap() returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    since  timestamptz := tide.consumer_alive_since();
    locked record;
    gone   text[];
    reaped int := 0;
begin
    if not tide.setting_is_on('consumer_cleanup_enabled') then
        return 0;
    end if;
    -- It waits for no one: a group or a consumer that is busy now is looked at the next time.
    for locked in
        select g.group_id from tide.consumer_group g
         where g.polled and exists (select from tide.consumer c where c.group_id = g.group_id and c.seen_at < since)
           for no key update skip locked
    loop
        with dead as (
            select c.name from tide.consumer c where c.group_id = locked.group_id and c.seen_at < since for update skip locked
        ), removed as (
            delete from tide.consumer c using dead d where c.group_id = locked.group_id and c.name = d.name returning c.name
        )
        select array_agg(r.name) into gone from removed r;
        update tide.consumer_lease l set lease_until = '-infinity'
         where l.group_id = locked.group_id and not l.settled and l.consumer = any(gone);
        reaped := reaped + coalesce(cardinality(gone), 0);
    end loop;
    return reaped;
end $$;
comment on function tide.consumers_reap is
    'Removes the consumers that were silent for too long, and gives what they hold to the next poll; returns how many.';

-- Messages with ids in (after_id, last_id], counted along the index, and when the first was published.
create or replace function tide.message_count(
    outbox_id int, after_id bigint, last_id bigint, out messages bigint, out first_at timestamptz
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    select count(*) into messages from tide.message m
     where m.outbox_id = message_count.outbox_id and m.id > after_id and m.id <= last_id;
    select m.created_at into first_at from tide.message m
     where m.outbox_id = message_count.outbox_id and m.id > after_id and m.id <= last_id order by m.id limit 1;
end $$;

-- The ranges of a group that are not settled; the last is what was never handed out.
create or replace function tide.consumer_unsettled(in_group int)
returns table (after_id bigint, last_id bigint, consumer text, lease_until timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select l.after_id, l.last_id, l.consumer, l.lease_until from tide.consumer_lease l where l.group_id = in_group and not l.settled
    union all
    select coalesce((select max(l.last_id) from tide.consumer_lease l where l.group_id = in_group), g.offset_id),
           9223372036854775807, null, null
      from tide.consumer_group g where g.group_id = in_group
$$;

-- The horizon is read once for each outbox, however many groups poll it.
create or replace function tide.consumer_lag(consumer_group text default null)
returns table (
    consumer_group text, outbox text, offset_id bigint, horizon bigint, lag bigint, lag_seconds float8, leased bigint, consumers bigint
)
language sql security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan set enable_seqscan = off set enable_bitmapscan = off as $$
    with polled as materialized (
        select g.group_id, g.name, g.outbox_id, g.offset_id from tide.find_consumer_groups(consumer_lag.consumer_group) g
    ), horizons as materialized (
        select o.outbox_id, h.horizon
          from (select distinct p.outbox_id from polled p) o cross join lateral tide.outbox_horizon(o.outbox_id) h
    )
    select g.name, o.name, g.offset_id, h.horizon, u.lag,
           coalesce(greatest(extract(epoch from clock_timestamp() - u.oldest), 0), 0)::float8, u.leased,
           (select count(*) from tide.consumer c where c.group_id = g.group_id and c.seen_at >= tide.consumer_alive_since())
      from polled g
      join tide.outbox o on o.outbox_id = g.outbox_id
      join horizons h on h.outbox_id = g.outbox_id
     cross join lateral (
            select sum(m.messages)::bigint as lag, min(m.first_at) as oldest,
                   coalesce(sum(m.messages) filter (where r.lease_until > clock_timestamp()), 0)::bigint as leased
              from tide.consumer_unsettled(g.group_id) r
             cross join lateral tide.message_count(g.outbox_id, r.after_id, r.last_id) m) u
     order by g.name
$$;
comment on function tide.consumer_lag is
    'How far each polled group is behind: committed messages that are not settled, and the age of the oldest of them in seconds.';

create or replace function tide.consumer_status(consumer_group text)
returns table (
    consumer text, seen_at timestamptz, is_alive boolean, held bigint, first_id bigint, last_id bigint, lease_until timestamptz
)
language sql security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan set enable_seqscan = off set enable_bitmapscan = off as $$
    select k.name, c.seen_at, coalesce(c.seen_at >= tide.consumer_alive_since(), false),
           coalesce(h.held, 0)::bigint, h.first_id, h.last_id, h.lease_until
      from tide.find_consumer_groups(coalesce(consumer_status.consumer_group, '')) g
     cross join lateral (
            select n.name from tide.consumer n where n.group_id = g.group_id
            union
            select r.consumer from tide.consumer_unsettled(g.group_id) r where r.consumer is not null) k
      left join tide.consumer c on c.group_id = g.group_id and c.name = k.name
     cross join lateral (
            select sum(m.messages) as held, min(r.after_id) + 1 as first_id, max(r.last_id) as last_id, min(r.lease_until) as lease_until
              from tide.consumer_unsettled(g.group_id) r
             cross join lateral tide.message_count(g.outbox_id, r.after_id, r.last_id) m
             where r.consumer = k.name) h
     order by k.name
$$;
comment on function tide.consumer_status is
    'Who polls a group: when it was last seen, how many messages it holds, of which ids, and when the first lease runs out.';
