-- Tables as outboxes: what statements change is published.

-- Publishes without any check, for functions that have made their own. As in outbox_publish_many the mark, the look at
-- the bell and the rows are three statements, in this order.
create function tide.outbox_append(box tide.outbox, payloads jsonb[], keys text[], headers jsonb[]) returns bigint[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    mark    text;
    new_ids bigint[];
    asleep  boolean;
begin
    if current_setting('tide.inflight_' || box.outbox_id, true) is distinct from 'on' then
        mark := tide.outbox_mark(box.outbox_id, box.ids);
        asleep := tide.outbox_asleep(box.outbox_id);
    end if;
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
    'Publishes messages in the order of the array and returns their ids. Whoever calls it has checked outbox, sizes and headers.';

create or replace function tide.outbox_publish_many(
    outbox text, payloads jsonb[], keys text[] default null, headers jsonb[] default null
) returns bigint[]
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box     tide.outbox := tide.find_outbox(outbox);
    wanted  int := coalesce(cardinality(payloads), 0);
    wrong   record;
    refusal text;
begin
    if not box.enabled then
        refusal := tide.outbox_refuse(outbox, null, 0);
    elsif cardinality(keys) <> wanted or cardinality(headers) <> wanted then
        raise exception 'outbox_publish_many got % payloads, % keys and % headers',
            wanted, coalesce(cardinality(keys), 0), coalesce(cardinality(headers), 0) using
            errcode = 'array_subscript_error',
            hint = 'Give arrays of the same length, or NULL for all keys or all headers. Nothing was published.';
    elsif wanted = 0 then
        return '{}';
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

revoke all on all functions in schema tide from public;
