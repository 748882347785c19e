-- Publishing.
--
-- The protocol (why no row of a slower transaction is ever lost, and no publisher ever waits):
--   1. The first publish of a transaction to an outbox reads last_value of the outbox's sequence, v, and THEN takes
--      the shared advisory lock (lock_class of the outbox, v mod 2^31): "my ids are all above v". This is its mark.
--   2. It THEN takes its ids and inserts.
--   3. A reader reads last_value (top), THEN the marks from pg_locks, and THEN, in a new statement with a new
--      snapshot, the rows up to the horizon: the lowest mark, or top if there is none.
--   A publisher whose mark was not seen either took it after top was read, so its ids are above top; or had ended,
--   and PostgreSQL releases locks only after a commit is visible, so the later snapshot sees its rows.
--
-- Any role may take such a lock. A publisher's is told by a lock on a table that it has taken before: see tide.mark.
--
-- After its mark a publisher looks at the bell: see bells.sql. The readers' part: see horizon.sql. INSERT instead of a call: see
-- outbox_views.sql.

-- The first key of the advisory locks by which publishers mark themselves. The base keeps clear of the small numbers
-- that applications tend to use; a stranger's lock in the same class is not a mark, see tide.mark.
create or replace function tide.lock_class(outbox_id int) returns int
language sql immutable parallel safe
return 1952670720 + outbox_id % 1000000;

-- From here on this transaction knows the partitions that are attached. PostgreSQL tells it when it takes a lock, and one that
-- has the tables of an outbox open takes none to use them again: its messages would be refused, which their partition takes
-- and the default partition does not, and it would not see those of others, and settle them unread. So it takes a lock on the
-- sequence that nothing else takes, and gives it back.
create or replace function tide.see_partitions(ids regclass) returns bigint
language sql volatile
return pg_relation_size(ids);

-- The mark where it is not simply new: takes it again, or another one, and returns whether it is new.
--
-- Anyone can set a setting. One of another transaction, left over in a pool, is passed over. One of this transaction says
-- which lock it has, and that one is taken again, before each id: where it is held, that is a count in this process; where
-- it is not, because the number of this transaction was guessed and set before, it is taken here, within the bounds in
-- which a mark is true: not above the last id, and less than 2^31 below it.
-- Where another session holds the lock exclusively, which no publisher does, a mark further below is as true, and holds back
-- a little more until this transaction ends. No publisher waits; one fails if a stranger holds nearly every lock there is.
create or replace function tide.outbox_mark_again(outbox_id int, ids regclass) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    setting text := 'tide.inflight_' || outbox_id;
    own     text := pg_current_xact_id();
    present text := current_setting(setting, true);
    top     bigint := coalesce(pg_sequence_last_value(ids), 0);
    marked  bigint := top;
    is_new  boolean := split_part(present, ' ', 1) is distinct from own;
    holders text;
begin
    perform tide.see_partitions(ids);
    if not is_new then
        marked := greatest(least(split_part(present, ' ', 2)::bigint, top), top - 2000000000);
    end if;
    for attempt in 1 .. 100 loop
        if pg_try_advisory_xact_lock_shared(tide.lock_class(outbox_id), (marked & 2147483647)::int) then
            if is_new then
                perform set_config(setting, own || ' ' || marked, true);
            end if;
            return is_new;
        end if;
        is_new := true;
        marked := top - 1 - floor(random() * 1000000)::bigint;
    end loop;
    select string_agg(distinct format('pid %s of role %s', m.pid, coalesce(quote_ident(a.usename), 'unknown')), ', ')
      into holders
      from tide.mark m left join pg_stat_activity a on a.pid = m.pid
     where m.class = tide.lock_class(outbox_id) and not m.publishes;
    raise exception 'outbox "%" cannot be published to: sessions that do not publish hold its advisory locks (%)',
        (select o.name from tide.outbox o where o.outbox_id = outbox_mark_again.outbox_id), coalesce(holders, 'they have ended') using
        errcode = 'lock_not_available',
        hint = 'Nothing was published. End them: select pg_terminate_backend(pid); and see relay doctor.';
end $$;

-- Takes the mark of this transaction on an outbox, and returns whether it is new. The setting is "<transaction> 0<v>".
-- Arguments are evaluated before the call, so last_value is read before the lock is taken; for the setting it is read a
-- moment earlier, which is as true. Lock and setting both revert with a savepoint.
-- PL/pgSQL sets up each expression again in each transaction, so the publish functions have few; this one is inlined,
-- and name and class of the mark are columns.
create or replace function tide.outbox_mark(outbox_id int, class int, setting text, ids regclass) returns boolean
language sql volatile
return case
    when coalesce(current_setting(setting, true), '') = ''
         and set_config(setting, concat(pg_current_xact_id(), ' 0', pg_sequence_last_value(ids)), true) <> ''
         and pg_try_advisory_xact_lock_shared(class, (coalesce(pg_sequence_last_value(ids), 0) & 2147483647)::int) then true
    else tide.outbox_mark_again(outbox_id, ids) end;

-- What a publisher asks where the bell does not say that there is nothing to ask. Makes sure of its mark, too, and returns the
-- sequence of the ids. A + at the end of the setting says that this has been asked since the mark was taken.
-- Who publishes calls it, and it does no more for them than a publish does.
create or replace function tide.outbox_ask(outbox_id int) returns regclass
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.outbox;
begin
    select * into box from tide.outbox o where o.outbox_id = outbox_ask.outbox_id;
    if not box.enabled or box.kind = 'jobs' or box.guarded and not tide.may_publish(box.outbox_id) then
        perform tide.outbox_refuse(box.name, null, 0);
    end if;
    return tide.outbox_ring(box);
end $$;

-- The same for who has been asked for their rights.
create or replace function tide.outbox_ring(box tide.outbox) returns regclass
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    is_new  boolean := tide.outbox_mark_again(box.outbox_id, box.ids);
    present text := current_setting(box.mark_setting);
begin
    if is_new or present not like '%+' then
        perform pg_notify('tide_outbox_notify', box.name) where tide.outbox_asleep(box.outbox_id);
        perform set_config(box.mark_setting, rtrim(present, ' +') || ' +', true);
    end if;
    return box.ids;
end $$;

-- A message that is not the first of its transaction takes the lock on the v of its mark again, which costs a count. As long as no
-- more than `near` ids were taken since, which is a hundredth of a range, no partition that this transaction does not know is near: see
-- tide.see_partitions. What is not so simple is asked.
create or replace function tide.outbox_more(outbox_id int, class int, setting text, ids regclass, bell regclass, near bigint) returns regclass
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    return case
        when split_part(current_setting(setting), ' ', 1) = pg_current_xact_id()::text
             and pg_sequence_last_value(bell) < case when current_setting(setting) like '%+' then 3 else 2 end
             and pg_sequence_last_value(ids) - split_part(current_setting(setting), ' ', 2)::bigint between 0 and near
             and pg_try_advisory_xact_lock_shared(class, (split_part(current_setting(setting), ' ', 2)::bigint & 2147483647)::int) then ids
        else tide.outbox_ask(outbox_id) end;
end $$;

-- A mark, then a look at the bell; returns the sequence, for nextval to take an id from then. One expression, so that PL/pgSQL and the
-- defaults of a view run it as part of their INSERT; and a short one, because PostgreSQL sets it up for each. The setting is as in tide.outbox_mark.
create or replace function tide.outbox_marked(outbox_id int, class int, setting text, ids regclass, bell regclass, near bigint) returns regclass
language sql volatile
return case
    when coalesce(current_setting(setting, true), '') = ''
         and set_config(setting, concat(pg_current_xact_id(), ' 0', pg_sequence_last_value(ids)), true) <> ''
         and pg_try_advisory_xact_lock_shared(class, (coalesce(pg_sequence_last_value(ids), 0) & 2147483647)::int)
         and pg_sequence_last_value(bell) = 1 then ids
    else tide.outbox_more(outbox_id, class, setting, ids, bell, near) end;

-- The bytes of a message as text. An INSERT into a view does not store them: a row cannot be given what depends on it for less than
-- the whole INSERT costs.
create or replace function tide.message_size(size int, payload jsonb, headers jsonb, key text) returns int
language sql stable
return coalesce(size, octet_length(payload::text) + octet_length(headers::text) + coalesce(octet_length(key), 0));

-- Whether a message is certainly too large, told by the size of the values as they are: to make JSON a text takes seconds for
-- 200 MB. As stored, JSON takes at most some four times the bytes of its text (a number of one digit takes 12).
create or replace function tide.far_too_large(max_bytes int, payload jsonb, headers jsonb) returns boolean
language sql stable
return greatest(pg_column_size(payload), pg_column_size(headers)) > 8 * max_bytes::bigint;

create or replace function tide.outbox_refuse(
    outbox text, headers jsonb, size bigint, which text default ''
) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    box tide.outbox := tide.find_outbox(outbox);
begin
    if box.kind = 'jobs' then
        raise exception 'outbox "%" is a queue of jobs and takes no messages', box.name using
            errcode = 'wrong_object_type', hint = 'Enqueue a job: select tide.job_enqueue(...). Nothing was published.';
    elsif box.guarded and not tide.may_publish(box.outbox_id) then
        raise exception 'role % may not publish to outbox "%"', quote_ident(tide.caller()), box.name using
            errcode = 'insufficient_privilege',
            hint = format('Let the owner of schema tide, or a role of tide.grant_admin, run: select tide.outbox_grant_publish(%L, %L);',
                          box.name, tide.caller());
    elsif not box.enabled then
        raise exception 'outbox "%" is disabled', box.name using
            errcode = 'object_not_in_prerequisite_state',
            hint = format('Enable it: select tide.outbox_enable(%L);', box.name);
    elsif jsonb_typeof(headers) <> 'object' then
        raise exception '%headers must be a JSON object, not %', which, jsonb_typeof(headers) using
            errcode = 'invalid_parameter_value', hint = 'For example: ''{"type": "order.created"}''. Nothing was published.';
    end if;
    raise exception '%the message for outbox "%" has % bytes, its limit is %', which, box.name,
        coalesce(size::text, 'more than ' || box.max_payload_bytes), box.max_payload_bytes using
        errcode = 'program_limit_exceeded',
        hint = 'Nothing was published. Publish a reference to large data, or raise max_payload_bytes in tide.outbox.';
end $$;

-- The size of a large message, as text, unless it is refused before: no work is done for what cannot be published.
create or replace function tide.outbox_measure(outbox text, payload jsonb, headers jsonb, key text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    box tide.outbox := tide.find_outbox(outbox);
begin
    if tide.far_too_large(box.max_payload_bytes, payload, headers) or octet_length(key) > box.max_payload_bytes
       or not box.enabled or box.kind = 'jobs' or box.guarded and not tide.may_publish(box.outbox_id) then
        perform tide.outbox_refuse(outbox, headers, null);
    end if;
    return coalesce(octet_length(payload::text), 4) + coalesce(octet_length(headers::text), 2) + coalesce(octet_length(key), 0);
end $$;

-- What is not simply published: a message that is large or refused, or goes to a guarded outbox.
create or replace function tide.outbox_publish_checked(outbox text, payload jsonb, headers jsonb, key text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    size bigint := tide.outbox_measure(outbox, payload, headers, key);
    box  tide.outbox := tide.find_outbox(outbox);
begin
    if size > box.max_payload_bytes or jsonb_typeof(headers) <> 'object' then
        perform tide.outbox_refuse(outbox, headers, size);
    end if;
    return (tide.outbox_append(box, array[payload], array[key], array[headers]))[1];
end $$;

-- One statement: PL/pgSQL sets up each again in each transaction, which costs more than the rest. What it does not find or must not
-- publish takes another way.
create or replace function tide.outbox_publish(
    outbox text, payload jsonb, headers jsonb default '{}', key text default null
) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    new_id bigint;
begin
    insert into tide.message (outbox_id, id, size, key, headers, payload)
    select o.outbox_id, nextval(tide.outbox_marked(o.outbox_id, o.mark_class, o.mark_setting, o.ids, o.bell, o.partition_size / 100)),
           m.size, key, coalesce(headers, '{}'), coalesce(payload, 'null')
      from tide.outbox o
     cross join (select case when tide.far_too_large(1048576, payload, headers) then null
                             else coalesce(octet_length(payload::text), 4) + coalesce(octet_length(headers::text), 2)
                                  + coalesce(octet_length(key), 0) end as size offset 0) m
     where o.name = outbox and o.enabled and not o.guarded and m.size <= o.max_payload_bytes and coalesce(headers @> '{}', true)
    returning id into new_id;
    if new_id is null then
        new_id := tide.outbox_publish_checked(outbox, payload, headers, key);
    end if;
    return new_id;
end $$;
comment on function tide.outbox_publish is 'Publishes a message in the caller''s transaction and returns its id.';
