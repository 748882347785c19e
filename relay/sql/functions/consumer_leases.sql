-- Competing consumers poll an outbox in SQL, lease what they get, and commit it.
--
-- What a group has handed out lies in ranges of ids, (after_id, last_id], each with the consumer that holds it. The ranges
-- of a group are contiguous from its offset upward: every one begins where the one below ends, so no message is in two,
-- none between two. Above the highest range nothing was handed out yet.
--   poll    leases the lowest range whose lease has run out, or else a new range up to the horizon
--   commit  settles a range, or the lower part of one; the offset moves over the settled ranges at the bottom
-- Both lock the row of the group first, so that they take turns; nothing else changes a range but what has this lock.
--
-- A commit of what the consumer does not hold is refused, also of what is settled already: work that is done in the
-- transaction of its commit is done once only if it is rolled back whenever another, or the same one before, has done it.
--
-- A commit settles within the one range that its id lies in, and not what else the consumer holds below. A worker that
-- died after a poll and came back under its old name knows nothing of that poll: if its next commit settled everything
-- below, those messages would be lost. So they come again when their lease runs out.
--
-- A consumer that polls before it has committed, and gets what it has in hand already, has lost that lease meanwhile, and another may
-- have taken the part below. It drops the batch that it had: a commit says an id, not of which poll.
--
-- Poll reads the horizon first and the messages in a later statement, hence with a later snapshot: see publish.sql. A snapshot
-- that outlives a statement would miss messages below the horizon, and their ids would be passed. So it must be READ
-- COMMITTED, and so must a seek, which removes every range. The others do not have to: a transaction that sees a range began
-- after the poll had ended, so it sees every message of the range, and PostgreSQL refuses it with a serialization failure
-- if another has changed the range since.

-- How far a batch from `after_id` goes: at most max_messages, at most 16 MiB unless one alone is larger. `taken` messages
-- up to the id `last_id`; whole: no message up to `upto` is left over.
create or replace function tide.message_batch(
    outbox_id int, after_id bigint, upto bigint, max_messages int, out last_id bigint, out taken bigint, out whole boolean
)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    select max(m.id) filter (where m.bytes_before < 16777216), count(*) filter (where m.bytes_before < 16777216),
           count(*) < max_messages and count(*) = count(*) filter (where m.bytes_before < 16777216)
      into last_id, taken, whole
      from (select i.id, coalesce(sum(tide.message_size(i.size, i.payload, i.headers, i.key))
                                      over (order by i.id rows between unbounded preceding and 1 preceding), 0) as bytes_before
              from tide.message i
             where i.outbox_id = message_batch.outbox_id and i.id > message_batch.after_id and i.id <= upto
             order by i.id
             limit max_messages) m;
end $$;

-- Settles the range (after_id, last_id], which the group has or had, and returns the group's offset. The ranges above it
-- that are settled, and the one below, become one with it, so that a slow consumer does not make the others' ranges many.
create or replace function tide.consumer_settle(locked tide.consumer_group, after_id bigint, last_id bigint) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    reach bigint := last_id;
    more  bigint;
    below tide.consumer_lease;
begin
    delete from tide.consumer_lease l where l.group_id = locked.group_id and l.after_id = consumer_settle.after_id;
    loop
        delete from tide.consumer_lease l
         where l.group_id = locked.group_id and l.after_id = reach and l.settled returning l.last_id into more;
        exit when not found;
        reach := more;
    end loop;
    if after_id = locked.offset_id then
        update tide.consumer_group g set offset_id = reach where g.group_id = locked.group_id;
        return reach;
    end if;
    select * into below from tide.consumer_lease l
     where l.group_id = locked.group_id and l.after_id >= locked.offset_id and l.after_id < consumer_settle.after_id
     order by l.after_id desc limit 1;
    if below.settled then
        update tide.consumer_lease l set last_id = reach where l.group_id = below.group_id and l.after_id = below.after_id;
    else
        insert into tide.consumer_lease (group_id, after_id, last_id, settled) values (locked.group_id, after_id, reach, true);
    end if;
    return locked.offset_id;
end $$;

-- The lowest range whose lease has run out, leased again: all of it, or as much as a batch takes. Nothing, if there is
-- none. One that has no messages any more, because retention removed them, is settled on the way.
-- Ranges lie above the offset: saying so keeps the scan off the index entries of all that was deleted below.
create or replace function tide.consumer_lease_again(
    inout locked tide.consumer_group, consumer text, batch_size int, lease_until timestamptz,
    out after_id bigint, out last_id bigint
)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    expired tide.consumer_lease;
    batch   record;
begin
    loop
        select * into expired from tide.consumer_lease l
         where l.group_id = locked.group_id and l.after_id >= locked.offset_id
           and (l.settled and l.after_id = locked.offset_id or not l.settled and l.lease_until <= clock_timestamp())
         order by l.after_id limit 1;
        exit when not found;
        batch := tide.message_batch(locked.outbox_id, expired.after_id, expired.last_id, batch_size);
        -- Settled at the bottom: a transaction of an older snapshot moved the offset and did not see that it is.
        if expired.settled or batch.taken = 0 then
            locked.offset_id := tide.consumer_settle(locked, expired.after_id, expired.last_id);
            continue;
        end if;
        after_id := expired.after_id;
        last_id := case when batch.whole then expired.last_id else batch.last_id end;
        update tide.consumer_lease l
           set last_id = consumer_lease_again.last_id, consumer = consumer_lease_again.consumer,
               lease_until = consumer_lease_again.lease_until
         where l.group_id = locked.group_id and l.after_id = expired.after_id;
        -- The rest has no consumer until it is polled. Who had it has worked on the part that is taken now, too, maybe in the
        -- transaction that is going to commit: that commit must be refused, and one for the rest cannot be told from it.
        if last_id < expired.last_id then
            insert into tide.consumer_lease (group_id, after_id, last_id, lease_until)
            values (locked.group_id, last_id, expired.last_id, expired.lease_until);
        end if;
        return;
    end loop;
end $$;

-- A new range above the highest. With fewer messages than a batch takes it reaches to the horizon, and so over the ids
-- that were rolled back. With none there is no range; if nothing is leased, the offset goes to the horizon on its own.
create or replace function tide.consumer_lease_new(
    locked tide.consumer_group, consumer text, batch_size int, lease_until timestamptz,
    out after_id bigint, out last_id bigint
)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    top     bigint;
    horizon bigint;
    batch   record;
begin
    select l.last_id into top from tide.consumer_lease l
     where l.group_id = locked.group_id and l.after_id >= locked.offset_id order by l.after_id desc limit 1;
    select h.horizon into horizon from tide.outbox_horizon(locked.outbox_id) h;
    -- A later statement than the horizon's.
    batch := tide.message_batch(locked.outbox_id, coalesce(top, locked.offset_id), horizon, batch_size);
    if batch.taken > 0 then
        after_id := coalesce(top, locked.offset_id);
        last_id := case when batch.whole then horizon else batch.last_id end;
        insert into tide.consumer_lease (group_id, after_id, last_id, consumer, lease_until)
        values (locked.group_id, after_id, last_id, consumer, lease_until);
    elsif top is null and horizon > locked.offset_id then
        update tide.consumer_group g set offset_id = horizon where g.group_id = locked.group_id;
    end if;
end $$;

-- Plans are made for the values at hand, so that a poll opens only the partitions it needs, and always along an index:
-- the tables of leases are small and often bloated, and a partition may have grown since it was analysed.
create or replace function tide.poll_outbox(
    consumer_group text, consumer text, batch_size int default 100, visibility_seconds int default 30
) returns table (id bigint, key text, payload jsonb, headers jsonb, created_at timestamptz)
language plpgsql security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
declare
    locked tide.consumer_group;
    again  record;
    leased record;
    until  timestamptz;
begin
    perform tide.check_isolation('polled', consumer_group);
    if batch_size is null or batch_size not between 1 and 10000 then
        raise exception 'batch_size is %, and must be from 1 to 10000', coalesce(batch_size::text, 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'It is how many messages a poll returns at most.';
    end if;
    perform tide.check_seconds('visibility_seconds', visibility_seconds);
    locked := tide.consumer_group_lock(consumer_group, consumer);
    until := clock_timestamp() + make_interval(secs => visibility_seconds);
    again := tide.consumer_lease_again(locked, consumer, batch_size, until);
    if again.last_id is not null then
        leased := again;
    else
        leased := tide.consumer_lease_new(again.locked, consumer, batch_size, until);
    end if;
    if leased.last_id is not null then
        return query
            select m.id, m.key, m.payload, m.headers, m.created_at from tide.message m
             where m.outbox_id = locked.outbox_id and m.id > leased.after_id and m.id <= leased.last_id
             order by m.id;
    end if;
end $$;
comment on function tide.poll_outbox is
    'Leases the next messages of a polled group to a consumer, in the order of their ids. Not committed in time, they come again.';

-- Committing ----------------------------------------------------------------------------------------------------------
create or replace function tide.refuse_commit(locked tide.consumer_group, consumer text, last_offset bigint, holder tide.consumer_lease) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    is_settled boolean := last_offset <= locked.offset_id or holder.last_id >= last_offset and holder.settled;
    is_held    boolean := not is_settled and holder.last_id >= last_offset;
begin
    raise exception 'consumer "%" of group "%" does not hold message %: %', consumer, locked.name, last_offset,
        case when is_settled then 'it is settled already' when is_held and holder.consumer is not null
             then format('consumer "%s" does', holder.consumer) else 'no consumer does' end using
        errcode = 'object_not_in_prerequisite_state',
        hint = case when is_settled
                    then 'It was committed by this consumer before, or by another to whom it went when the lease ran out. What was done for '
                         'it in this transaction must not be done twice: roll back, and poll again.'
                    when is_held
                    then 'Its lease ran out, and another has polled it, or messages that were polled with it. Nothing was committed: poll '
                         'again. Ask for more time with visibility_seconds, or while you work with tide.extend_lease.'
                    else 'Nothing was committed. Commit the id of a message that tide.poll_outbox has returned to this consumer; '
                         'after tide.seek_offset, poll again.' end;
end $$;

create or replace function tide.commit_offset(consumer_group text, consumer text, last_offset bigint) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
declare
    locked tide.consumer_group := tide.consumer_group_lock(consumer_group, consumer);
    lease  tide.consumer_lease;
begin
    if last_offset is null or last_offset < 0 then
        raise exception 'last_offset is %, and must be the id of a message', coalesce(last_offset::text, 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'Commit the id of the last message that is done.';
    elsif last_offset = 0 then
        return locked.offset_id;
    end if;
    select * into lease from tide.consumer_lease l
     where l.group_id = locked.group_id and l.after_id >= locked.offset_id and l.after_id < last_offset
     order by l.after_id desc limit 1;
    if lease.last_id is null or lease.last_id < last_offset or lease.settled or lease.consumer is distinct from commit_offset.consumer then
        perform tide.refuse_commit(locked, consumer, last_offset, lease);
    end if;
    -- Ids without a message at the end of the range are settled with it: no one could commit them.
    if exists (select from tide.message m
                where m.outbox_id = locked.outbox_id and m.id > last_offset and m.id <= lease.last_id) then
        -- The holder of the lock sees every range, but for a snapshot from before the lock (REPEATABLE READ, SERIALIZABLE): there
        -- `on conflict` makes of a duplicate key what callers know to try again, a serialization failure.
        insert into tide.consumer_lease (group_id, after_id, last_id, consumer, lease_until)
        values (locked.group_id, last_offset, lease.last_id, lease.consumer, lease.lease_until)
        on conflict on constraint consumer_lease_pkey do nothing;
        lease.last_id := last_offset;
    end if;
    return tide.consumer_settle(locked, lease.after_id, lease.last_id);
end $$;
comment on function tide.commit_offset is
    'Settles the messages of a poll up to an id, and returns the group''s offset: everything up to it is settled.';

create or replace function tide.extend_lease(consumer_group text, consumer text, extension_seconds int default 30) returns timestamptz
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    locked   tide.consumer_group;
    earliest timestamptz;
begin
    perform tide.check_seconds('extension_seconds', extension_seconds);
    locked := tide.consumer_group_lock(consumer_group, consumer);
    with extended as (
        update tide.consumer_lease l
           set lease_until = greatest(l.lease_until, clock_timestamp() + make_interval(secs => extension_seconds))
         where l.group_id = locked.group_id and l.after_id >= locked.offset_id
           and not l.settled and l.consumer = extend_lease.consumer
        returning l.lease_until
    )
    select min(e.lease_until) into earliest from extended e;
    if earliest is null then
        raise exception 'consumer "%" of group "%" holds no messages', consumer, consumer_group using
            errcode = 'object_not_in_prerequisite_state',
            hint = 'They are committed, or their lease ran out and another consumer has polled them. Poll again.';
    end if;
    return earliest;
end $$;
comment on function tide.extend_lease is
    'Gives a consumer so many seconds from now for all that it holds, never less than it has; returns when the first lease runs out.';

create or replace function tide.seek_offset(consumer_group text, consumer text, new_offset bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s'
-- A generic plan would lock and plan every partition of every outbox.
set plan_cache_mode = force_custom_plan as $$
declare
    locked  tide.consumer_group;
    horizon bigint;
    oldest  bigint;
begin
    -- It removes every range, so it must see every range.
    perform tide.check_isolation('set to an offset', consumer_group);
    locked := tide.consumer_group_lock(consumer_group, consumer, false);
    select h.horizon into horizon from tide.outbox_horizon(locked.outbox_id) h;
    if new_offset is null or new_offset not between 0 and horizon then
        raise exception 'consumer group "%" cannot be set to %', consumer_group, coalesce(new_offset::text, 'NULL') using
            errcode = 'invalid_parameter_value',
            hint = format('0 is before the first message, %s (the horizon) is after the last that can be read now.', horizon);
    end if;
    delete from tide.consumer_lease l where l.group_id = locked.group_id;
    update tide.consumer_group g set offset_id = new_offset where g.group_id = locked.group_id;
    select m.id into oldest from tide.message m where m.outbox_id = locked.outbox_id order by m.id limit 1;
    if coalesce(oldest, horizon + 1) > new_offset + 1 then
        raise notice 'consumer group "%" goes on with message %: what was below is no longer kept',
            consumer_group, coalesce(oldest, horizon + 1);
    end if;
end $$;
comment on function tide.seek_offset is
    'Sets a group back or forward: the next poll begins above new_offset. Whatever consumers hold is taken from them.';

create or replace function tide.consumer_heartbeat(consumer_group text, consumer text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    in_group int;
begin
    perform tide.check_consumer_name(consumer);
    perform tide.require_consumer(g, false) from tide.consumer_group g
      where g.polled and g.name = consumer_heartbeat.consumer_group;
    -- Waits for one that drops the group, and for nothing else.
    select g.group_id into in_group from tide.consumer_group g
     where g.polled and g.name = consumer_heartbeat.consumer_group for key share;
    if not found then
        perform tide.refuse_consumer_group(consumer_group);
    end if;
    perform tide.consumer_seen(in_group, consumer, '0');
end $$;
comment on function tide.consumer_heartbeat is 'Says that a consumer is alive. It does not extend its leases: see tide.extend_lease.';
