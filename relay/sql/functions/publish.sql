-- Publishing, the horizon and the bell.
--
-- Publish (why no row of a slower transaction is ever lost, and no publisher ever waits):
--   1. The first publish of a transaction to an outbox reads last_value of the outbox's sequence, v, and THEN takes
--      the shared advisory lock (lock_class of the outbox, v mod 2^31): "my ids are all above v". This is its mark.
--   2. It THEN takes its ids and inserts.
--   3. A reader reads last_value (top), THEN the marks from pg_locks, and THEN, in a new statement with a new
--      snapshot, the rows up to the horizon: the lowest mark, or top if there is none.
--   A publisher whose mark was not seen either took it after top was read, so its ids are above top; or had ended,
--   and PostgreSQL releases locks only after a commit is visible, so the later snapshot sees its rows.
--
-- Any role may take such a lock. A publisher's is told by the lock on tide.outbox that it has taken before: see tide.mark.
--
-- Bell: publishers NOTIFY only if a consumer group sleeps. A group arms its bell, commits, and looks again: a publisher
-- that saw the bell unarmed had its mark before the bell was armed, so the second look sees the mark or the row.

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

-- Whether a publisher that has just taken its mark must NOTIFY. A snapshot that is older than the mark may not show a
-- bell armed since, so REPEATABLE READ and SERIALIZABLE always do. PREPARE TRANSACTION refuses a transaction that has
-- executed NOTIFY: a publisher that sets tide.two_phase leaves its messages to the timer. With no scheduler to hear it a
-- NOTIFY would only make publishers wait for each other; the next scheduler looks at everything when it starts.
create or replace function tide.outbox_asleep(outbox_id int) returns boolean
language sql volatile
return coalesce(current_setting('tide.two_phase', true), '') <> 'on'
   and (current_setting('transaction_isolation') <> 'read committed'
        or exists (select from tide.bell b where b.outbox_id = outbox_asleep.outbox_id and b.armed)
           and exists (select from tide.scheduler s where s.seen_at > clock_timestamp() - interval '15 seconds'));

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

create or replace function tide.outbox_publish(
    outbox text, payload jsonb, headers jsonb default '{}', key text default null
) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    size      bigint := case when tide.far_too_large(1048576, payload, headers) then tide.outbox_measure(outbox, payload, headers, key)
                             else coalesce(octet_length(payload::text), 4) + coalesce(octet_length(headers::text), 2) + coalesce(octet_length(key), 0) end;
    in_outbox int;
    ids       regclass;
    marked    boolean;
    new_id    bigint;
    asleep    boolean;
begin
    select o.outbox_id, o.ids, tide.outbox_mark(o.outbox_id, o.mark_class, o.mark_setting, o.ids)
      into in_outbox, ids, marked
      from tide.outbox o
     where o.name = outbox_publish.outbox and o.enabled and size <= o.max_payload_bytes
       and coalesce(headers @> '{}', true) and not o.guarded;
    -- The question of a guarded outbox is a statement more, so that others do not pay for it.
    if not found then
        select o.outbox_id, o.ids, tide.outbox_mark(o.outbox_id, o.mark_class, o.mark_setting, o.ids)
          into in_outbox, ids, marked
          from tide.outbox o
         where o.name = outbox_publish.outbox and o.enabled and size <= o.max_payload_bytes
           and coalesce(headers @> '{}', true) and o.kind = 'messages' and (not o.guarded or tide.may_publish(o.outbox_id));
        if not found then
            perform tide.outbox_refuse(outbox, headers, size);
        end if;
    end if;
    -- A first look at the bell, in a statement later than the mark; the whole question is a statement more, asked only then.
    insert into tide.message (outbox_id, id, size, key, headers, payload)
    values (in_outbox, nextval(ids), size, key, coalesce(headers, '{}'), coalesce(payload, 'null'))
    returning id, marked and (current_setting('transaction_isolation') <> 'read committed'
                              or exists (select from tide.bell b where b.outbox_id = in_outbox and b.armed))
      into new_id, asleep;
    if asleep then
        perform pg_notify('tide_outbox_notify', outbox) where tide.outbox_asleep(in_outbox);
    end if;
    return new_id;
end $$;
comment on function tide.outbox_publish is 'Publishes a message in the caller''s transaction and returns its id.';

-- Publishes without any check, for functions that have made their own. As in outbox_publish_many the mark, the look at
-- the bell and the rows are three statements, in this order.
create or replace function tide.outbox_append(box tide.outbox, payloads jsonb[], keys text[], headers jsonb[]) returns bigint[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    marked  boolean;
    new_ids bigint[];
    asleep  boolean;
begin
    -- From the table: its lock is what tells a mark from a stranger's lock; see tide.mark.
    select tide.outbox_mark(o.outbox_id, o.mark_class, o.mark_setting, o.ids) into marked
      from tide.outbox o where o.outbox_id = box.outbox_id;
    if marked then
        asleep := tide.outbox_asleep(box.outbox_id);
    end if;
    perform tide.outbox_keep_partitions(box, cardinality(payloads));
    with given as (
        select coalesce(m.payload, 'null') as payload, m.key, coalesce(m.headers, '{}') as headers
          from unnest(payloads, keys, headers) with ordinality as m (payload, key, headers, number)
         order by m.number
    ), written as (
        insert into tide.message (outbox_id, id, size, key, headers, payload)
        select box.outbox_id, nextval(box.ids),
               octet_length(g.payload::text) + octet_length(g.headers::text) + coalesce(octet_length(g.key), 0),
               g.key, g.headers, g.payload
          from given g
        returning id
    )
    select array_agg(w.id order by w.id) into new_ids from written w;
    if asleep then
        perform pg_notify('tide_outbox_notify', box.name);
    end if;
    return new_ids;
end $$;
comment on function tide.outbox_append is
    'Publishes messages in the order of the array and returns their ids. The caller has checked outbox, sizes and headers.';

create or replace function tide.outbox_publish_many(
    outbox text, payloads jsonb[], keys text[] default null, headers jsonb[] default null
) returns bigint[]
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box     tide.outbox := tide.find_outbox(outbox);
    wanted  int := coalesce(cardinality(payloads), 0);
    given   bigint := coalesce(pg_column_size(payloads), 0)::bigint + coalesce(pg_column_size(keys), 0) + coalesce(pg_column_size(headers), 0);
    far     bigint;
    wrong   record;
    refusal text;
begin
    if not box.enabled or box.kind = 'jobs' or box.guarded and not tide.may_publish(box.outbox_id) then
        refusal := tide.outbox_refuse(outbox, null, 0);
    elsif cardinality(keys) <> wanted or cardinality(headers) <> wanted then
        raise exception 'outbox_publish_many got % payloads, % keys and % headers',
            wanted, coalesce(cardinality(keys), 0), coalesce(cardinality(headers), 0) using
            errcode = 'array_subscript_error',
            hint = 'Give arrays of the same length, or NULL for all keys or all headers. Nothing was published.';
    elsif wanted = 0 then
        return '{}';
    elsif given > 268435456 or wanted > 1000000 then
        raise exception 'outbox_publish_many got % messages of % bytes for outbox "%", the limits of one call are 1000000 and 268435456',
            wanted, given, box.name using
            errcode = 'program_limit_exceeded', hint = 'Nothing was published. Publish them in several calls.';
    elsif given > 8 * box.max_payload_bytes::bigint then
        select m.number into far from unnest(payloads, headers) with ordinality as m (payload, headers, number)
         where tide.far_too_large(box.max_payload_bytes, m.payload, m.headers) order by m.number limit 1;
        if found then
            refusal := tide.outbox_refuse(outbox, null, null, format('message %s of the array: ', far));
        end if;
    end if;
    select * into wrong
      from (select m.number, m.headers, coalesce(octet_length(m.payload::text), 4) + coalesce(octet_length(m.headers::text), 2)
                   + coalesce(octet_length(m.key), 0)::bigint as size
              from unnest(payloads, keys, headers) with ordinality as m (payload, key, headers, number)) m
     where m.size > box.max_payload_bytes or jsonb_typeof(m.headers) <> 'object'
     order by m.number
     limit 1;
    if found then
        refusal := tide.outbox_refuse(outbox, wrong.headers, wrong.size, format('message %s of the array: ', wrong.number));
    end if;
    return tide.outbox_append(box, payloads, keys, headers);
end $$;
comment on function tide.outbox_publish_many is 'Publishes messages in the order of the array and returns their ids in that order.';

-- The horizon, and how many publishers are open. The two reads are separate statements, in this order; the rows must be
-- read in a later one. Volatile: in READ COMMITTED each statement below sees the present.
-- A mark that is a little above top was taken after top was read, and its ids are above top: it holds nothing back.
create or replace function tide.outbox_horizon(outbox_id int, out horizon bigint, out open_publishers int)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    top bigint := coalesce(tide.outbox_last_id(outbox_id), 0);
begin
    select greatest(coalesce(top - max(marks.behind) filter (where marks.behind < 2130706432), top), 0), count(*)
      into horizon, open_publishers
      from (select (top - m.key) & 2147483647 as behind
              from tide.mark m
             where m.publishes and m.class = tide.lock_class(outbox_horizon.outbox_id)) marks;
    perform tide.see_partitions(o.ids) from tide.outbox o where o.outbox_id = outbox_horizon.outbox_id;
end $$;

create or replace function tide.outbox_oldest_publisher_seconds(outbox_id int) returns float8
language sql volatile security definer set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(extract(epoch from clock_timestamp() - min(coalesce(a.xact_start, x.prepared))), 0)::float8
      from tide.mark m
      left join pg_stat_activity a on a.pid = m.pid
      left join pg_locks t on m.pid is null and t.locktype = 'transactionid' and t.virtualtransaction = m.virtualtransaction
      left join pg_prepared_xacts x on x.transaction = t.transactionid
     where m.publishes and m.class = tide.lock_class(outbox_oldest_publisher_seconds.outbox_id);
end;
comment on function tide.outbox_oldest_publisher_seconds is 'How long the oldest transaction that still publishes is open; 0 if there is none.';
