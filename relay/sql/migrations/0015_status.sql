-- compatible: yes
-- Functions that read one outbox look at its partitions alone, also in a session without the settings of the relay. There
-- the sixth call of PL/pgSQL tries a generic plan, for which every partition of every outbox is locked and planned: more than
-- a second with 1,000 outboxes.

alter function tide.outbox_holds(text) set plan_cache_mode = force_custom_plan;
alter function tide.relay_replay_preview(text, bigint, bigint) set plan_cache_mode = force_custom_plan;
alter function tide.seek_offset(text, text, bigint) set plan_cache_mode = force_custom_plan;

-- As before, but the horizon is read once for each outbox, however many groups poll it.
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
