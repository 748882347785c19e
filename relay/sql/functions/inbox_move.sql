-- Moving messages of an outbox into an inbox of the same database: no worker sees them.
--
-- The row of a message is what a worker makes of it under the wire format raw (relay/wire/formats/raw.py, and
-- relay/backends/postgresql/sink.py): tests/workers/test_local_inbox.py compares the two. What cannot become a row raises
-- an error here; nothing was moved then, and the worker takes the same messages its own way.
--
-- To plan the move takes as long as to move 40 messages. So each outbox and inbox between which messages are moved have a
-- function of their own, which names their tables and whose plan is kept: tide.inbox_move_<outbox>_<inbox>.

-- The headers of a message as texts: strings as they are, everything else as JSON without blanks.
create or replace function tide.header_texts(headers jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic
    select jsonb_object_agg(e.key, case when jsonb_typeof(e.value) = 'string' then e.value #>> '{}'
                                        -- A string is kept whole, with what is escaped in it. Blanks are between two tokens only.
                                        when jsonb_typeof(e.value) in ('object', 'array')
                                        then regexp_replace(e.value::text, E'("(?:[^"\\\\]|\\\\.)*")| ', E'\\1', 'g')
                                        else e.value::text end)
      from jsonb_each(headers) e;
end;

-- Makes the function. Where another session makes it at the same moment, this one fails, and its worker does without.
-- A moment that RFC 3339 does not have is the nearest one that it has. What is scanned is in order, so it is not sorted again.
create or replace function tide.inbox_move_copy(origin tide.outbox, box tide.inbox) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format($copy$
        create function tide.inbox_move_%1$s_%2$s(
            after_id bigint, horizon bigint, max_messages int, max_bytes bigint,
            out messages bigint, out added bigint, out last_id bigint, out first_at timestamptz
        ) language plpgsql set search_path = pg_catalog, pg_temp as $body$
        #variable_conflict use_column
        begin
            with batch as materialized (
                select m.id, m.key, m.payload, m.created_at,
                       case when m.headers = '{}' then m.headers
                            when m.headers @? 'strict $.* ? (@.type() <> "string")' is not false then tide.header_texts(m.headers)
                            else m.headers end
                       || jsonb_build_object(
                            'relay-id', %4$L || m.id, 'relay-outbox', %3$L, 'relay-created-at',
                            to_char(least(greatest(m.created_at at time zone 'UTC', '0001-01-01'), '9999-12-31 23:59:59.999999'),
                                    'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) as headers
                  from (select l.id, l.key, l.payload, l.headers, l.created_at,
                               sum(tide.message_size(l.size, l.payload, l.headers, l.key))
                                   over (order by l.id rows between unbounded preceding and 1 preceding) as bytes_before
                          from tide.%5$I l
                         where l.outbox_id = %1$s and l.id > after_id and l.id <= horizon
                         order by l.id
                         limit max_messages) m
                 where coalesce(m.bytes_before, 0) < max_bytes
                 order by m.id
            ), written as (
                insert into %6$I.%7$I (%8$I, event_type, source, aggregate_id, event_sequence, payload, headers, trace_id, received_at)
                select (%4$L || b.id)::%9$s, b.headers ->> 'type', %3$L, b.key, b.id, b.payload, b.headers,
                       substring(b.headers ->> 'traceparent'
                                 from E'^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-[^\\n]*)?$'), now()
                  from batch b
                on conflict (%8$I) do nothing
                returning 1
            )
            select count(*), (select count(*) from written), max(b.id), min(b.created_at) into messages, added, last_id, first_at
              from batch b;
        end $body$
        $copy$, origin.outbox_id, box.inbox_id, origin.name, origin.name || ':', origin.log, box.table_schema, box.table_name,
        box.event_id_col, box.event_id_type);
    execute format('revoke all on function tide.inbox_move_%s_%s from public', origin.outbox_id, box.inbox_id);
end $$;

-- Forgets the functions of an outbox, of an inbox, or all of them: relay migrate does, as they may come from an earlier
-- original.
create or replace function tide.inbox_move_drop(outbox_id int default null, inbox_id int default null) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    copies text;
begin
    select string_agg(p.oid::regprocedure::text, ', ') into copies
      from pg_proc p
     where p.pronamespace = 'tide'::regnamespace
       and p.proname ~ format('^inbox_move_%s_%s$', coalesce(outbox_id::text, '[0-9]+'), coalesce(inbox_id::text, '[0-9]+'));
    if copies is not null then
        execute format('drop function %s', copies);
    end if;
end $$;

-- Moves the next messages up to the horizon, which an earlier statement has read, and settles them: at most max_messages,
-- at most max_bytes unless one alone is larger. The fence is locked before anything is written. With nothing to settle
-- nothing is written, and messages is null. No row: fenced.
create or replace function tide.inbox_move(
    pipeline text, epoch bigint, number bigint, lease_seconds float8, group_id int, outbox_id int, inbox text, after_id bigint,
    horizon bigint, max_messages int, max_bytes bigint
) returns table (revision bigint, up_to_id bigint, messages bigint, last_id bigint, first_at timestamptz)
language plpgsql security definer
-- Also for the function that is made: always along the index, by one plan.
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
#variable_conflict use_column
declare
    origin tide.outbox;
    box    tide.inbox;
    named  text;
    added  bigint;
begin
    up_to_id := coalesce(horizon, current_setting('tide.horizon')::bigint);
    if up_to_id > after_id then
        perform from tide.drain d
          where d.pipeline = inbox_move.pipeline and d.epoch = inbox_move.epoch and d.number = inbox_move.number
            for update;
        if not found then
            return;
        end if;
        select * into box from tide.inbox i where i.name = inbox_move.inbox;
        if not found then
            perform tide.find_inbox(inbox);
        end if;
        perform tide.inbox_guard(box, 'row exclusive');
        select * into origin from tide.outbox o where o.outbox_id = inbox_move.outbox_id and o.kind = 'messages';
        if not found then
            raise exception 'there is no outbox of messages with the number %', outbox_id using
                errcode = 'undefined_object', hint = 'Their numbers are in tide.outbox.';
        end if;
        named := format('tide.inbox_move_%s_%s', outbox_id, box.inbox_id);
        if to_regproc(named) is null then
            perform tide.inbox_move_copy(origin, box);
        end if;
        -- A plan that is kept locks all partitions.
        if origin.partitions_end - origin.retained_id > 100 * origin.partition_size then
            set local plan_cache_mode = force_custom_plan;
        end if;
        execute format('select * from %s($1, $2, $3, $4)', named)
           into messages, added, last_id, first_at using after_id, up_to_id, max_messages, max_bytes;
        last_id := coalesce(last_id, up_to_id);
        if added < messages then
            insert into tide.inbox_duplicates (inbox_id, messages) values (box.inbox_id, messages - added);
        end if;
        update tide.drain d
           set lease_until = clock_timestamp() + make_interval(secs => lease_seconds), delivered = d.delivered + messages
         where d.pipeline = inbox_move.pipeline and d.epoch = inbox_move.epoch and d.number = inbox_move.number;
        if not found then
            raise exception 'what was written to inbox "%" has fenced its own drain', inbox using errcode = 'object_not_in_prerequisite_state';
        end if;
        update tide.consumer_group g set offset_id = last_id where g.group_id = inbox_move.group_id and g.offset_id < last_id;
        -- As durable as the server is told to be.
        set local synchronous_commit to default;
    end if;
    return query
        select p.revision, up_to_id, messages, last_id, first_at
          from tide.drain d join tide.pipeline p on p.name = d.pipeline
         where d.pipeline = inbox_move.pipeline and d.epoch = inbox_move.epoch and d.number = inbox_move.number;
end $$;
comment on function tide.inbox_move is
    'Moves messages of an outbox into an inbox of this database and settles them, under the fence of a drain. For relays.';
