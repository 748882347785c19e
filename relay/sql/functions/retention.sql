-- Retention: what is settled and old is removed automatically, and nothing else is.
--
-- A partition of an outbox goes whole, by TRUNCATE, which locks that partition alone and leaves no dead row behind,
-- whatever snapshot is open elsewhere. (A snapshot older than the TRUNCATE sees the partition empty: no one
-- needs what was in it.) The empty partition is dropped later, which locks the parent that every publisher opens.
--
-- Why no publisher waits for long:
--   1. A partition that ids still go to is not touched: all its ids lie at or below the horizon.
--   2. What needs the parent first looks twice, a moment apart: if the same transaction has it both times, it is left
--      for the next time. Only then it asks, and waits no longer than lock_timeout: the longest that publishers queue.
-- Why no message is lost:
--   3. Under the exclusive lock of a partition every row in it is committed, and no other comes. What is judged is the
--      row with the highest id: if every group has settled that one, it has settled them all.

-- Holds ---------------------------------------------------------------------------------------------------------------

-- Each group of an outbox: up to where it needs nothing any more (its offset, or what a replay wants still), whether it is
-- at work, and since when it has been as it is. A group that another database reads is taken to be at work.
create or replace function tide.outbox_groups(outbox_id int) returns table (
    group_id int, consumer_group text, pipeline text, state text, settled_id bigint, changed_at timestamptz
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select g.group_id, g.name, p.name,
           case when not p.enabled then 'disabled'
                when p.invalid_reason is not null then 'invalid'
                when g.polled and coalesce(seen.at < tide.consumer_alive_since(), true) then 'unpolled'
                else 'active' end,
           least(tide.settled_id(g.group_id), (select min(r.next_id) - 1 from tide.replay r
                                where r.pipeline = p.name and r.ended_at is null)),
           coalesce(p.updated_at, seen.at, '-infinity')
      from tide.consumer_group g
      left join tide.pipeline p on p.group_id = g.group_id
      left join lateral (select max(c.seen_at) as at from tide.consumer c where c.group_id = g.group_id) seen on true
     where g.outbox_id = outbox_groups.outbox_id and g.lane = 0
$$;

-- How long a message may be kept for a stopped group; null: indefinitely.
create or replace function tide.longest_hold(box tide.outbox) returns interval
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select make_interval(hours => greatest((box).retention_hours, tide.setting_number('max_retention_hours')))
     where tide.setting_number('max_retention_hours') > 0;
end;

create or replace function tide.outbox_holds(outbox text) returns table (
    consumer_group text, pipeline text, state text, settled_id bigint, messages bigint, oldest_id bigint,
    oldest_at timestamptz, since timestamptz, until timestamptz, seconds_left float8, ending boolean
)
language plpgsql stable security definer
-- A generic plan would lock and plan every partition of every outbox.
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan
set enable_sort = off set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    box     tide.outbox := tide.find_outbox(outbox);
    forced  boolean := tide.setting_is_on('outbox_force_retention');
    longest interval := case when forced then tide.longest_hold(box) else make_interval(hours => box.retention_hours) end;
begin
    return query
    select g.consumer_group, g.pipeline, g.state, g.settled_id,
           case when first.id is null then 0 else tide.outbox_last_id(box.outbox_id) - first.id + 1 end,
           first.id, first.created_at, began.at, ends.at, extract(epoch from ends.at - clock_timestamp())::float8,
           coalesce(ends.at - clock_timestamp() <= longest * 0.2, false)
      from tide.outbox_groups(box.outbox_id) g
      left join tide.hold h on h.group_id = g.group_id
      left join lateral (
          (select m.id, m.created_at from tide.message m
            where m.outbox_id = box.outbox_id and m.id > g.settled_id order by m.id limit 1)
          union all
          (select j.id, j.created_at from tide.job j
            where j.outbox_id = box.outbox_id and j.id > g.settled_id order by j.id limit 1)) first on true
      left join lateral (select greatest(h.since, g.changed_at) as at where g.state <> 'active') began on true
      left join lateral (select greatest(first.created_at, case when forced then coalesce(began.at, clock_timestamp()) end) + longest as at
                          where first.id is not null and box.kind <> 'jobs' and (g.state <> 'active' or not forced)) ends on true
     order by g.settled_id, g.consumer_group;
end $$;
comment on function tide.outbox_holds is
    'What each consumer group keeps retention from removing. until: not before then it goes unsettled; null: never.';

-- Whether a partition may go, judged by the message in it that has the highest id.
create or replace function tide.outbox_may_go(box tide.outbox, newest_id bigint, newest_at timestamptz) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select newest_at <= clock_timestamp() - make_interval(hours => (box).retention_hours)
           and case when (box).kind = 'jobs' then
               -- A job that has not ended is never lost, whatever the settings are.
               not exists (select from tide.consumer_group g where g.outbox_id = (box).outbox_id and g.offset_id < newest_id)
           else not (tide.setting_is_on('outbox_force_retention') and exists (
               select from tide.outbox_groups((box).outbox_id) g
                 left join tide.hold h on h.group_id = g.group_id
                where g.settled_id < newest_id
                  and (g.state = 'active'
                       or coalesce(greatest(newest_at, h.since, g.changed_at) + tide.longest_hold(box) > clock_timestamp()
                                   or h.since is null, true)))) end
$$;

-- The record of what goes unsettled, made under the lock of its partition.
create or replace function tide.record_losses(box tide.outbox, part regclass, newest_id bigint) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    behind record;
    number bigint;
    lost   bigint := 0;
begin
    for behind in select * from tide.outbox_groups(box.outbox_id) g where g.settled_id < newest_id loop
        execute format('insert into tide.retention_loss '
                       '(outbox, consumer_group, pipeline, reason, messages, first_id, last_id, first_at, last_at) '
                       'select $1, $2, $3, $4, count(*), min(m.id), max(m.id), min(m.created_at), max(m.created_at) '
                       'from %s m where m.id > $5 returning messages', part)
           into number
          using box.name, behind.consumer_group, behind.pipeline,
                case when tide.setting_is_on('outbox_force_retention') then behind.state else 'not forced' end, behind.settled_id;
        lost := lost + number;
    end loop;
    return lost;
end $$;

-- What became of a partition: empty (it was), kept, busy (another transaction has it), or truncated.
create or replace function tide.outbox_truncate(box tide.outbox, part regclass, out outcome text, out lost bigint)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    newest record;
    twins  regclass[] := tide.outbox_twins(box, part);
begin
    lost := 0;
    select * into newest from tide.newest_message(part, box.outbox_id);
    if newest.id is null then
        outcome := 'empty';
        return;
    elsif not tide.outbox_may_go(box, newest.id, newest.created_at) then
        outcome := 'kept';
        return;
    end if;
    execute format('lock table %s in access exclusive mode', array_to_string(twins, ', '));
    -- The default partition may have got more meanwhile, and a group may have been made, or set back.
    select * into newest from tide.newest_message(part, box.outbox_id);
    if not tide.outbox_may_go(box, newest.id, newest.created_at) then
        outcome := 'kept';
        return;
    end if;
    lost := tide.record_losses(box, part, newest.id);
    execute format('truncate %s', array_to_string(twins, ', '));
    outcome := 'truncated';
exception when lock_not_available then
    outcome := 'busy';
end $$;

-- Keeps in mind that nothing is stored: until it gives another id, an outbox is not looked at again. Or when the oldest message was
-- published that is stored: until that is old nothing may go. `top` is a horizon read in an earlier statement: if it is the last id,
-- no transaction can add a message below it. Not where a partition is left to drop.
create or replace function tide.outbox_retained(box tide.outbox, top bigint) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    part      regclass;
    stored_at timestamptz;
    first_at  timestamptz;
    is_empty  boolean := true;
begin
    if box.kind <> 'messages' or exists (select from tide.outbox_partitions(box.outbox_id) p
                                          where p.end_id <= top + 1 and pg_relation_size(p.part) = 0) then
        return;
    end if;
    for part in select p.part from tide.outbox_partitions(box.outbox_id) p where pg_relation_size(p.part) > 0 loop
        execute format('select m.created_at from %s m where m.outbox_id = $1 order by m.id limit 1', part) into stored_at using box.outbox_id;
        first_at := least(first_at, stored_at);
        is_empty := false;
    end loop;
    if is_empty and tide.outbox_last_id(box.outbox_id) <> top or not is_empty and box.retention_hours = 0 then
        return;
    end if;
    update tide.outbox o set retained_id = case when is_empty then top else o.retained_id end, oldest_at = first_at
     where o.outbox_id = box.outbox_id
       and (o.oldest_at is distinct from first_at or is_empty and o.retained_id <> top);
end $$;

-- Removes what may go of one outbox. Calls may overlap: the second finds the outbox's row locked and does nothing.
create or replace function tide.outbox_retain(
    outbox text, max_partitions int default 16,
    out truncated int, out dropped int, out lost bigint, out busy boolean, out more boolean, out warning text
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    box     tide.outbox := tide.find_outbox(outbox);
    top     bigint;
    part    record;
    done    record;
    in_use  int := 0;
    stays   boolean := false;
    unfinished boolean := false;
    emptied regclass[] := '{}';
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'retention of outbox "%" cannot run in a transaction that is %', box.name, current_setting('transaction_isolation')
            using errcode = 'active_sql_transaction', hint = 'Call it in READ COMMITTED: it must see what commits while it works.';
    end if;
    truncated := 0; dropped := 0; lost := 0; busy := false; more := false;
    perform from tide.outbox o where o.outbox_id = box.outbox_id for no key update skip locked;
    if not found then
        busy := true;
        return;
    end if;
    insert into tide.hold (group_id)
    select g.group_id from tide.outbox_groups(box.outbox_id) g where g.state <> 'active' on conflict do nothing;
    delete from tide.hold h using tide.outbox_groups(box.outbox_id) g where h.group_id = g.group_id and g.state = 'active';
    if box.kind = 'jobs' then
        unfinished := tide.job_settle(box) or tide.job_forget(box);
    end if;
    -- The horizon in a statement of its own, the rows in later ones.
    select h.horizon into top from tide.outbox_horizon(box.outbox_id) h;
    for part in select p.part, p.end_id from tide.outbox_partitions(box.outbox_id) p where coalesce(p.end_id <= top + 1, true) loop
        -- Behind one that stays all stay, being younger and less settled; only the default partition may hold older ones.
        continue when stays and part.end_id is not null;
        more := truncated + in_use >= max_partitions or cardinality(emptied) >= max_partitions;
        exit when more;
        select t.* into done from tide.outbox_truncate(box, part.part) t;
        truncated := truncated + (done.outcome = 'truncated')::int;
        in_use := in_use + (done.outcome = 'busy')::int;
        lost := lost + done.lost;
        stays := stays or done.outcome = 'kept';
        if done.outcome = 'empty' and part.end_id is not null then
            emptied := emptied || part.part;
        end if;
    end loop;
    more := more or unfinished;
    busy := in_use > 0;
    if cardinality(emptied) > 0 then
        if tide.outbox_drop_partitions(box, emptied) then
            dropped := cardinality(emptied);
        else
            busy := true;
        end if;
    end if;
    -- Once the parent is ours publishers wait for the end of this: the cut can wait for the next time.
    if dropped = 0 then
        perform tide.outbox_cut(box);
        perform tide.outbox_retained(box, top);
    end if;
    -- Where every group has settled everything nothing is held, and no plan is made to see that.
    if not exists (select from tide.outbox_groups(box.outbox_id) g where g.settled_id < tide.outbox_last_id(box.outbox_id)) then
        return;
    end if;
    select string_agg(format('%s (%s) holds %s messages, the oldest %s, for %s hours more',
                             h.consumer_group, h.state, h.messages, h.oldest_id, greatest(round(h.seconds_left / 3600), 0)), '; ')
      into warning from tide.outbox_holds(box.name) h where h.ending and h.messages > 0;
end $$;
comment on function tide.outbox_retain is
    'Removes partitions that every group has settled and that are older than the retention. The relay calls it; you may.';

-- Dead letters and history --------------------------------------------------------------------------------------------
create or replace function tide.dead_letter_retain(max_rows int default 10000) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    hours   int := tide.setting_number('dead_letter_retention_hours');
    removed bigint := 0;
begin
    if hours > 0 then
        delete from tide.dead_letter d
         where d.dead_letter_id in (
                   select o.dead_letter_id from tide.dead_letter o
                    where o.failed_at < clock_timestamp() - make_interval(hours => hours) and o.retry_requested_at is null
                    order by o.failed_at limit max_rows for update skip locked);
        get diagnostics removed = row_count;
    end if;
    return removed;
end $$;
comment on function tide.dead_letter_retain is
    'Removes dead letters older than dead_letter_retention_hours that no one has asked to retry.';

create or replace function tide.config_history_retain(max_rows int default 10000) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    hours   int := tide.setting_number('config_history_retention_hours');
    removed bigint := 0;
    replays bigint;
begin
    if hours > 0 then
        delete from tide.pipeline_history h
         where h.history_id in (
                   select o.history_id from tide.pipeline_history o
                    where o.changed_at < clock_timestamp() - make_interval(hours => hours)
                    order by o.changed_at limit max_rows for update skip locked);
        get diagnostics removed = row_count;
        delete from tide.replay r
         where r.replay_id in (
                   select o.replay_id from tide.replay o
                    where o.ended_at < clock_timestamp() - make_interval(hours => hours)
                    order by o.ended_at limit max_rows - removed for update skip locked);
        get diagnostics replays = row_count;
        removed := removed + replays;
    end if;
    return removed;
end $$;
comment on function tide.config_history_retain is 
    'Removes history of configurations, and replays that ended, older than config_history_retention_hours.';
