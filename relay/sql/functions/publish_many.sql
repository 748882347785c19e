-- Publishing many messages in one call. The protocol: see publish.sql.

-- Publishes without any check, for functions that have made their own. The mark, then the look at the bell, then the rows.
create or replace function tide.outbox_append(box tide.outbox, payloads jsonb[], keys text[], headers jsonb[]) returns bigint[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    rings   boolean;
    new_ids bigint[];
begin
    -- From the table: its lock is what tells a mark from a stranger's lock; see tide.mark.
    select tide.outbox_mark(o.outbox_id, o.mark_class, o.mark_setting, o.ids) and pg_sequence_last_value(o.bell) > 1 into rings
      from tide.outbox o where o.outbox_id = box.outbox_id;
    perform tide.outbox_keep_partitions(box, cardinality(payloads));
    with written as (
        insert into tide.message (outbox_id, id, size, key, headers, payload)
        select box.outbox_id, nextval(box.ids),
               octet_length(m.payload::text) + octet_length(m.headers::text) + coalesce(octet_length(m.key), 0),
               m.key, m.headers, m.payload
          from (select coalesce(g.payload, 'null') as payload, g.key, coalesce(g.headers, '{}') as headers
                  from unnest(payloads, keys, headers) as g (payload, key, headers) offset 0) m
        returning id
    )
    select array_agg(w.id) into new_ids from written w;
    if rings then
        perform pg_notify('tide_outbox_notify', box.name) where tide.outbox_asleep(box.outbox_id);
    end if;
    return new_ids;
end $$;
comment on function tide.outbox_append is
    'Publishes messages in the order of the array and returns their ids. The caller has checked outbox, sizes and headers.';

-- What is refused, or is not obviously right. The first message that is refused is named.
create or replace function tide.outbox_publish_many_checked(
    outbox text, payloads jsonb[], keys text[], headers jsonb[]
) returns bigint[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
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

-- Two statements: the mark, the look at the bell and the ids, then the rows in the order of the arrays, which set-returning functions in
-- the select list pass on one by one. Each message is measured once, as it is written.
create or replace function tide.outbox_publish_many(
    outbox text, payloads jsonb[], keys text[] default null, headers jsonb[] default null
) returns bigint[]
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    in_outbox int;
    max_bytes int;
    new_ids   bigint[];
begin
    select b.outbox_id, b.max_payload_bytes, array(select nextval(b.ids) from unnest(payloads)) into in_outbox, max_bytes, new_ids
      from (select o.outbox_id, o.max_payload_bytes,
                   tide.outbox_marked(o.outbox_id, o.mark_class, o.mark_setting, o.ids, o.bell, o.partition_size / 100) as ids
              from tide.outbox o
             where o.name = outbox and o.enabled and not o.guarded
               and cardinality(payloads) between 1 and o.partition_size / 100
               and coalesce(cardinality(keys) = cardinality(payloads), true)
               and coalesce(cardinality(headers) = cardinality(payloads), true)
               and pg_column_size(payloads)::bigint + coalesce(pg_column_size(keys), 0) + coalesce(pg_column_size(headers), 0)
                   <= least(8 * o.max_payload_bytes::bigint, 268435456) offset 0) b;
    if in_outbox is null then
        return tide.outbox_publish_many_checked(outbox, payloads, keys, headers);
    end if;
    insert into tide.message (outbox_id, id, size, key, headers, payload)
    select in_outbox, m.id,
           case when m.size <= max_bytes and m.headers @> '{}' then m.size
                else tide.outbox_refuse(outbox, m.headers, m.size, format('message %s of the array: ', array_position(new_ids, m.id)))::int end,
           m.key, m.headers, m.payload
      from (select g.id, g.key, coalesce(g.payload, 'null') as payload, coalesce(g.headers, '{}') as headers,
                   coalesce(octet_length(g.payload::text), 4) + coalesce(octet_length(g.headers::text), 2)
                   + coalesce(octet_length(g.key), 0) as size
              from (select unnest(new_ids) as id, unnest(payloads) as payload, unnest(keys) as key, unnest(headers) as headers) g
            offset 0) m;
    return new_ids;
end $$;
comment on function tide.outbox_publish_many is 'Publishes messages in the order of the array and returns their ids in that order.';
