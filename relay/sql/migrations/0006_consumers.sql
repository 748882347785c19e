-- Consumer groups for SQL: competing consumers poll an outbox, lease what they get, and commit it.
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
-- Poll reads the horizon first and the messages in a later statement, hence with a later snapshot: see 0001. A snapshot
-- that outlives a statement would miss messages below the horizon, and their ids would be passed. So it must be READ
-- COMMITTED, and so must a seek, which removes every range. The others need not: a transaction that sees a range began after the poll had ended, so it sees every message
-- of the range, and PostgreSQL refuses it with a serialization failure if another has changed the range since.

alter table tide.consumer_group add column polled boolean not null default false;
comment on column tide.consumer_group.polled is 'Whether consumers poll it with tide.poll_outbox; no pipeline reads such a group.';
-- A polled group is called by its name alone.
create unique index consumer_group_polled on tide.consumer_group (name) where polled;

create table tide.consumer (
    group_id int not null references tide.consumer_group on delete cascade,
    name     text not null check (length(name) between 1 and 200),
    seen_at  timestamptz not null,
    primary key (group_id, name)
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on table tide.consumer is 'Who polls each polled group, and when it was last heard of.';

create table tide.consumer_lease (
    group_id    int not null references tide.consumer_group on delete cascade,
    after_id    bigint not null,
    last_id     bigint not null,
    consumer    text,
    lease_until timestamptz,
    settled     boolean not null default false,
    primary key (group_id, after_id),
    check (after_id < last_id),
    check (settled or lease_until is not null)
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on table tide.consumer_lease is 'The ranges (after_id, last_id] that were handed out and lie above the offset of their group.';
comment on column tide.consumer_lease.consumer is
    'Null: nobody; what is left of a range that ran out, after another consumer has polled a part of it.';
comment on column tide.consumer_lease.settled is 'Committed, while something below is not. Neighbours that are settled are one range.';

-- Groups --------------------------------------------------------------------------------------------------------------

create function tide.refuse_consumer_group(consumer_group text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception 'consumer group % does not exist', coalesce('"' || consumer_group || '"', 'NULL') using
        errcode = 'undefined_object',
        hint = case when exists (select from tide.consumer_group g where g.name = refuse_consumer_group.consumer_group)
                    then 'A pipeline has a group of this name, which cannot be polled. Create one of another name: '
                         'select tide.create_consumer_group(name, outbox);'
                    else 'List those that can be polled: select * from tide.consumer_lag(); '
                         'or create it: select tide.create_consumer_group(name, outbox);' end;
end $$;

-- The polled groups: the one of this name, or all of them for NULL.
create function tide.find_consumer_groups(consumer_group text) returns setof tide.consumer_group
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    return query select * from tide.consumer_group g
                  where g.polled and (consumer_group is null or g.name = find_consumer_groups.consumer_group);
    if not found and consumer_group is not null then
        perform tide.refuse_consumer_group(consumer_group);
    end if;
end $$;

create function tide.check_consumer_name(consumer text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if consumer is null or btrim(consumer) = '' or length(consumer) > 200 then
        raise exception 'consumer name % is not valid', coalesce(quote_literal(left(consumer, 40)), 'NULL') using
            errcode = 'invalid_name',
            hint = 'Give every consumer of a group a name of its own of 1 to 200 characters, for example its host and process.';
    end if;
end $$;

create function tide.check_seconds(name text, seconds int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if seconds is null or seconds not between 1 and 43200 then
        raise exception '% is %, and must be from 1 to 43200', name, coalesce(seconds::text, 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'It is how many seconds the consumer has to commit; 43200 are 12 hours.';
    end if;
end $$;

create function tide.check_isolation(to_be_done text, consumer_group text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception 'consumer group "%" cannot be % in a transaction that is %',
            consumer_group, to_be_done, upper(current_setting('transaction_isolation')) using
            errcode = 'invalid_transaction_state',
            hint = 'Do it in a transaction of its own: begin isolation level read committed. tide.commit_offset may be in any.';
    end if;
end $$;

-- Writes down that a consumer was heard of. Not more than once a second for what calls it by the way.
create function tide.consumer_seen(in_group int, consumer text, at_least_every interval default '1 second') returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform from tide.consumer c
      where c.group_id = in_group and c.name = consumer and c.seen_at > clock_timestamp() - at_least_every;
    if not found then
        insert into tide.consumer (group_id, name, seen_at) values (in_group, consumer, clock_timestamp())
        on conflict on constraint consumer_pkey do update set seen_at = excluded.seen_at;
    end if;
end $$;

-- The group, locked: whoever changes its ranges has this lock. The lock lets references to the row be made meanwhile.
create function tide.consumer_group_lock(consumer_group text, consumer text) returns tide.consumer_group
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    locked tide.consumer_group;
begin
    perform tide.check_consumer_name(consumer);
    select * into locked from tide.consumer_group g
     where g.polled and g.name = consumer_group_lock.consumer_group for no key update;
    if not found then
        perform tide.refuse_consumer_group(consumer_group);
    end if;
    perform tide.consumer_seen(locked.group_id, consumer);
    return locked;
end $$;

create function tide.create_consumer_group(
    name text, outbox text, auto_offset_reset text default 'earliest', if_not_exists boolean default false
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box     tide.outbox := tide.find_outbox(outbox);
    start   bigint := 0;
    present record;
begin
    if name is null or name !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$' then
        raise exception 'consumer group name % is not valid', coalesce(quote_literal(name), 'NULL') using
            errcode = 'invalid_name',
            hint = 'Use 1 to 100 letters, digits, "_", "-" and ".", not starting with "-" or ".".';
    elsif auto_offset_reset is null or auto_offset_reset not in ('earliest', 'latest') then
        raise exception 'auto_offset_reset of consumer group "%" is %', name, coalesce(quote_literal(auto_offset_reset), 'NULL') using
            errcode = 'invalid_parameter_value',
            hint = 'earliest: from the oldest message that is kept. latest: what is committed from now on.';
    end if;
    if auto_offset_reset = 'latest' then
        select h.horizon into start from tide.outbox_horizon(box.outbox_id) h;
    end if;
    insert into tide.consumer_group (outbox_id, name, offset_id, polled) values (box.outbox_id, name, start, true)
    on conflict do nothing;
    if found then
        return;
    end if;
    -- Of two of this name, one polled on another outbox and one of this outbox, the one of this outbox stands in the way.
    select o.name as outbox, g.polled into present
      from tide.consumer_group g join tide.outbox o on o.outbox_id = g.outbox_id
     where g.name = create_consumer_group.name and (g.polled or g.outbox_id = box.outbox_id)
     order by g.outbox_id = box.outbox_id desc
     limit 1;
    if if_not_exists and present.polled and present.outbox = box.name then
        return;
    end if;
    raise exception 'consumer group "%" exists already: % of outbox "%"', name,
        case when present.polled then 'a polled group' else 'the group of a pipeline, or of another database,' end, present.outbox using
        errcode = 'duplicate_object',
        hint = case when present.polled and present.outbox = box.name then 'With if_not_exists => true it is left as it is.'
                    else 'Use another name.' end;
end $$;
comment on function tide.create_consumer_group is
    'Creates a group for consumers that poll. It begins with the oldest message kept, or with what is committed from now on.';

create function tide.drop_consumer_group(name text, if_exists boolean default false) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    delete from tide.consumer_group g where g.polled and g.name = drop_consumer_group.name;
    if not found and not coalesce(if_exists, false) then
        perform tide.refuse_consumer_group(name);
    end if;
end $$;
comment on function tide.drop_consumer_group is 'Forgets the group, its offset, its consumers and what they hold. Messages stay.';

-- A drain settles by the offset alone and knows nothing of ranges, so a group is read by a pipeline or polled.
create function tide.refuse_polled_group() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    polled_name text;
begin
    select g.name into polled_name from tide.consumer_group g where g.group_id = new.group_id and g.polled;
    if found then
        raise exception 'consumer group "%" is polled by consumers: pipeline "%" cannot read it', polled_name, new.name using
            errcode = 'duplicate_object', hint = 'Give the pipeline a consumer group of its own.';
    end if;
    return new;
end $$;
create trigger refuse_polled_group before insert or update of group_id on tide.pipeline
    for each row when (new.group_id is not null) execute function tide.refuse_polled_group();

-- Polling -------------------------------------------------------------------------------------------------------------

-- How far a batch from `after_id` goes: at most max_messages, at most 16 MiB unless one alone is larger. `taken` messages
-- up to the id `last_id`; whole: no message up to `upto` is left over.
create function tide.message_batch(
    outbox_id int, after_id bigint, upto bigint, max_messages int, out last_id bigint, out taken bigint, out whole boolean
)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    select max(m.id) filter (where m.bytes_before < 16777216), count(*) filter (where m.bytes_before < 16777216),
           count(*) < max_messages and count(*) = count(*) filter (where m.bytes_before < 16777216)
      into last_id, taken, whole
      from (select i.id, sum(i.size) over (order by i.id rows unbounded preceding) - i.size as bytes_before
              from tide.message i
             where i.outbox_id = message_batch.outbox_id and i.id > message_batch.after_id and i.id <= upto
             order by i.id
             limit max_messages) m;
end $$;

-- Settles the range (after_id, last_id], which the group has or had, and returns the group's offset. The ranges above it
-- that are settled, and the one below, become one with it, so that a slow consumer does not make the others' ranges many.
create function tide.consumer_settle(locked tide.consumer_group, after_id bigint, last_id bigint) returns bigint
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
create function tide.consumer_lease_again(
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
        -- The rest is nobody's until somebody polls it. Who had it has worked on the part that is taken now, too, maybe in the
        -- transaction that is going to commit: that commit must be refused, and one for the rest cannot be told from it.
        if last_id < expired.last_id then
            insert into tide.consumer_lease (group_id, after_id, last_id, lease_until)
            values (locked.group_id, last_id, expired.last_id, expired.lease_until);
        end if;
        return;
    end loop;
end $$;

-- A new range above the highest. With fewer messages than a batch takes it reaches to the horizon, and so over the ids
-- that were rolled back. With none there is no range; if nothing is leased, the offset goes to the horizon by itself.
create function tide.consumer_lease_new(
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
create function tide.poll_outbox(
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

create function tide.refuse_commit(locked tide.consumer_group, consumer text, last_offset bigint, holder tide.consumer_lease) returns void
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
                         'after tide.seek_offset, poll anew.' end;
end $$;

create function tide.commit_offset(consumer_group text, consumer text, last_offset bigint) returns bigint
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
    -- Ids without a message at the end of the range are settled with it: nobody could commit them.
    if exists (select from tide.message m
                where m.outbox_id = locked.outbox_id and m.id > last_offset and m.id <= lease.last_id) then
        -- Whoever has the lock sees every range, but for a snapshot from before the lock (REPEATABLE READ, SERIALIZABLE): there
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

create function tide.extend_lease(consumer_group text, consumer text, extension_seconds int default 30) returns timestamptz
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

create function tide.seek_offset(consumer_group text, consumer text, new_offset bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    locked  tide.consumer_group;
    horizon bigint;
    oldest  bigint;
begin
    -- It removes every range, so it must see every range.
    perform tide.check_isolation('set to an offset', consumer_group);
    locked := tide.consumer_group_lock(consumer_group, consumer);
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

create function tide.consumer_heartbeat(consumer_group text, consumer text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    in_group int;
begin
    perform tide.check_consumer_name(consumer);
    -- Waits for one that drops the group, and for nothing else.
    select g.group_id into in_group from tide.consumer_group g
     where g.polled and g.name = consumer_heartbeat.consumer_group for key share;
    if not found then
        perform tide.refuse_consumer_group(consumer_group);
    end if;
    perform tide.consumer_seen(in_group, consumer, '0');
end $$;
comment on function tide.consumer_heartbeat is 'Says that a consumer is alive. It does not extend its leases: see tide.extend_lease.';

-- Looking after consumers ---------------------------------------------------------------------------------------------

-- Since when a consumer must have been heard of to be alive; 0 hours: none is ever taken for dead.
create function tide.consumer_alive_since() returns timestamptz
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(clock_timestamp() - make_interval(hours => nullif(tide.setting_number('consumer_dead_threshold_hours'), 0)),
                    '-infinity');
end;

create function tide.consumers_reap() returns int
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
    -- It waits for nobody: a group or a consumer that is busy now is looked at the next time.
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
create function tide.message_count(
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
create function tide.consumer_unsettled(in_group int)
returns table (after_id bigint, last_id bigint, consumer text, lease_until timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select l.after_id, l.last_id, l.consumer, l.lease_until from tide.consumer_lease l where l.group_id = in_group and not l.settled
    union all
    select coalesce((select max(l.last_id) from tide.consumer_lease l where l.group_id = in_group), g.offset_id),
           9223372036854775807, null, null
      from tide.consumer_group g where g.group_id = in_group
$$;

create function tide.consumer_lag(consumer_group text default null)
returns table (
    consumer_group text, outbox text, offset_id bigint, horizon bigint, lag bigint, lag_seconds float8, leased bigint, consumers bigint
)
language sql security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan set enable_seqscan = off set enable_bitmapscan = off as $$
    select g.name, o.name, g.offset_id, h.horizon, u.lag,
           coalesce(greatest(extract(epoch from clock_timestamp() - u.oldest), 0), 0)::float8, u.leased,
           (select count(*) from tide.consumer c where c.group_id = g.group_id and c.seen_at >= tide.consumer_alive_since())
      from tide.find_consumer_groups(consumer_lag.consumer_group) g
      join tide.outbox o on o.outbox_id = g.outbox_id
     cross join lateral tide.outbox_horizon(g.outbox_id) h
     cross join lateral (
            select sum(m.messages)::bigint as lag, min(m.first_at) as oldest,
                   coalesce(sum(m.messages) filter (where r.lease_until > clock_timestamp()), 0)::bigint as leased
              from tide.consumer_unsettled(g.group_id) r
             cross join lateral tide.message_count(g.outbox_id, r.after_id, r.last_id) m) u
     order by g.name
$$;
comment on function tide.consumer_lag is
    'How far each polled group is behind: committed messages that are not settled, and the age of the oldest of them in seconds.';

create function tide.consumer_status(consumer_group text)
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
    'Who polls a group: when it was last heard of, how many messages it holds, of which ids, and when the first lease runs out.';

-- Outboxes ------------------------------------------------------------------------------------------------------------

-- As before, and refused while consumers poll: their groups, unlike a pipeline's, would be gone without a word.
create or replace function tide.outbox_drop(name text, if_exists boolean default false) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box     tide.outbox;
    used_by text;
    polled  text;
begin
    select * into box from tide.outbox o where o.name = outbox_drop.name;
    if not found then
        if not if_exists then
            perform tide.find_outbox(name);
        end if;
        return;
    end if;
    select string_agg(format('%I', p.name), ', ' order by p.name) into used_by
      from tide.pipeline p join tide.consumer_group g on g.group_id = p.group_id where g.outbox_id = box.outbox_id;
    select string_agg(format('%I', g.name), ', ' order by g.name) into polled
      from tide.consumer_group g where g.outbox_id = box.outbox_id and g.polled;
    if used_by is not null then
        raise exception 'outbox "%" is read by pipelines: %', name, used_by using
            errcode = 'dependent_objects_still_exist', hint = 'Delete them first: select tide.relay_delete(...);';
    elsif polled is not null then
        raise exception 'outbox "%" is polled by consumer groups: %', name, polled using
            errcode = 'dependent_objects_still_exist', hint = 'Drop them first: select tide.drop_consumer_group(...);';
    end if;
    delete from tide.consumer_group g where g.outbox_id = box.outbox_id;
    delete from tide.outbox o where o.outbox_id = box.outbox_id;
    execute format('drop table tide.message_%s', box.outbox_id);
    execute format('drop sequence tide.message_%s_ids', box.outbox_id);
end $$;

revoke all on all functions in schema tide from public;
