-- Consumer groups for SQL: creating and dropping them, and what all their functions check. The protocol: consumer_leases.sql.

create or replace function tide.refuse_consumer_group(consumer_group text) returns void
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

-- The polled groups that the caller may see: the one of this name, or all of them for NULL.
create or replace function tide.find_consumer_groups(consumer_group text) returns setof tide.consumer_group
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    if consumer_group is not null then
        perform tide.require_consumer(g, true) from tide.consumer_group g
          where g.polled and g.name = find_consumer_groups.consumer_group;
        if not found then
            perform tide.refuse_consumer_group(consumer_group);
        end if;
    end if;
    return query select * from tide.consumer_group g
                  where g.polled and (consumer_group is null or g.name = find_consumer_groups.consumer_group)
                    and (tide.may_see_anything() or tide.may_consume(g.group_id));
end $$;

create or replace function tide.check_consumer_name(consumer text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if consumer is null or btrim(consumer) = '' or length(consumer) > 200 then
        raise exception 'consumer name % is not valid', coalesce(quote_literal(left(consumer, 40)), 'NULL') using
            errcode = 'invalid_name',
            hint = 'Give every consumer of a group a name of its own of 1 to 200 characters, for example its host and process.';
    end if;
end $$;

create or replace function tide.check_seconds(name text, seconds int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if seconds is null or seconds not between 1 and 43200 then
        raise exception '% is %, and must be from 1 to 43200', name, coalesce(seconds::text, 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'It is how many seconds the consumer has to commit; 43200 are 12 hours.';
    end if;
end $$;

create or replace function tide.check_isolation(to_be_done text, consumer_group text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception 'consumer group "%" cannot be % in a transaction that is %',
            consumer_group, to_be_done, upper(current_setting('transaction_isolation')) using
            errcode = 'invalid_transaction_state',
            hint = 'Do it in a transaction of its own: begin isolation level read committed. tide.commit_offset may be in any.';
    end if;
end $$;

-- Makes room for one more consumer of a group: those that have been silent for a minute and hold nothing are forgotten. They
-- lose nothing by it: who polls again is seen again.
create or replace function tide.consumer_room(in_group int) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    most int := tide.setting_number('consumers_per_group');
begin
    if most = 0 or (select count(*) from tide.consumer c where c.group_id = in_group) < most then
        return;
    end if;
    delete from tide.consumer c
     where c.group_id = in_group and c.name = any (array(
           select s.name from tide.consumer s
            where s.group_id = in_group and s.seen_at < clock_timestamp() - interval '1 minute'
              and not exists (select from tide.consumer_lease l
                               where l.group_id = in_group and l.consumer = s.name and not l.settled and l.lease_until > clock_timestamp())
              for update skip locked));
    if not found then
        raise exception 'consumer group "%" has % consumers, and can have no more',
            (select g.name from tide.consumer_group g where g.group_id = in_group), most using
            errcode = 'configuration_limit_exceeded',
            hint = 'Give each worker a name that it keeps for all its polls. One that was silent for a minute and holds nothing makes room; '
                   'the setting consumers_per_group says how many there can be.';
    end if;
end $$;

-- Records that a consumer was seen. At most once a second for calls that do so in passing.
create or replace function tide.consumer_seen(in_group int, consumer text, at_least_every interval default '1 second') returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform from tide.consumer c
      where c.group_id = in_group and c.name = consumer and c.seen_at > clock_timestamp() - at_least_every;
    if found then
        return;
    end if;
    update tide.consumer c set seen_at = clock_timestamp() where c.group_id = in_group and c.name = consumer;
    if not found then
        perform tide.consumer_room(in_group);
        insert into tide.consumer (group_id, name, seen_at) values (in_group, consumer, clock_timestamp())
        on conflict on constraint consumer_pkey do update set seen_at = excluded.seen_at;
    end if;
end $$;

-- The group, locked: every change of its ranges holds this lock. The lock lets references to the row be made meanwhile. An
-- operator may seek without the right to consume.
create or replace function tide.consumer_group_lock(consumer_group text, consumer text, as_consumer boolean default true)
returns tide.consumer_group
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    locked tide.consumer_group;
begin
    perform tide.check_consumer_name(consumer);
    if as_consumer then
        perform tide.require_consumer(g, false) from tide.consumer_group g
          where g.polled and g.name = consumer_group_lock.consumer_group;
    end if;
    select * into locked from tide.consumer_group g
     where g.polled and g.name = consumer_group_lock.consumer_group for no key update;
    if not found then
        perform tide.refuse_consumer_group(consumer_group);
    end if;
    perform tide.consumer_seen(locked.group_id, consumer);
    -- What the others have leased or settled may lie in partitions that are new to this transaction.
    perform tide.see_partitions(o.ids) from tide.outbox o where o.outbox_id = locked.outbox_id;
    return locked;
end $$;

create or replace function tide.create_consumer_group(
    name text, outbox text, auto_offset_reset text default 'earliest', if_not_exists boolean default false
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box     tide.outbox := tide.find_message_outbox(outbox);
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

create or replace function tide.drop_consumer_group(name text, if_exists boolean default false) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    gone int;
begin
    delete from tide.consumer_group g where g.polled and g.name = drop_consumer_group.name returning g.group_id into gone;
    if gone is not null then
        execute format('drop function if exists tide.%I() cascade', format('consume_from_%s', gone));
    elsif not coalesce(if_exists, false) then
        perform tide.refuse_consumer_group(name);
    end if;
end $$;
comment on function tide.drop_consumer_group is 'Forgets the group, its offset, its consumers and what they hold. Messages stay.';

-- A drain settles by the offset alone and knows nothing of ranges, so a group is read by a pipeline or polled.
create or replace function tide.refuse_polled_group() returns trigger
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
create or replace trigger refuse_polled_group before insert or update of group_id on tide.pipeline
    for each row when (new.group_id is not null) execute function tide.refuse_polled_group();
