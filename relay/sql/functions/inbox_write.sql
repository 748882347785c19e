-- Writing messages into inboxes.
--
-- A message becomes a row once: event_id is the table's primary key, and every writer does nothing on a conflict. A
-- reverse drain writes rows, dead letters and positions in one transaction that names its fence, commits, and only then
-- acknowledges to its source.

-- To be called before anything with the owner's rights reads or writes the table: see table_trust.sql. The lock keeps what
-- was looked at as it is until the transaction ends: 'access share' for reading.
-- It looks at the usual inbox by one statement, whose plan is kept, along indexes.
create or replace function tide.inbox_guard(box tide.inbox, lock_mode text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    named    text := format('%I.%I', box.table_schema, box.table_name);
    relation regclass := to_regclass(named);
    kind     "char";
    is_plain boolean;
    id_type  text;
    code     text;
begin
    select c.relkind into kind from pg_class c where c.oid = relation;
    if kind = 'r' then
        execute format('lock table only %s in %s mode', named, lock_mode);
        select p.is_plain, p.id_type into is_plain, id_type from tide.inbox_look_at(relation, box.event_id_col) p;
        if lock_mode = 'access exclusive' or not is_plain then
            code := tide.inbox_code_of_others(relation);
        end if;
    end if;
    if kind is null or to_regclass(named) is distinct from relation then
        raise exception 'the table % of inbox "%" is gone', named, box.name using
            errcode = 'invalid_table_definition',
            hint = format(case when box.tracked then 'Forget it: select tide.disable_inbox_tracking(%L);'
                               else 'Forget it: select tide.inbox_drop(%L);' end, box.name);
    elsif kind <> 'r' then
        raise exception '%, the table of inbox "%", is no ordinary table any more', named, box.name using
            errcode = 'wrong_object_type', hint = 'A role that may replace objects of that schema has replaced it.';
    elsif code is not null then
        raise exception 'inbox "%" is not touched: code of others would run with the rights of %: %', box.name, quote_ident(current_user), code
            using errcode = 'insufficient_privilege',
            hint = format('Remove it. If you trust a function or a type, and no one else may change it, let it belong to %I.', current_user);
    -- What is written is converted to the type that was looked at then.
    elsif box.event_id_type <> id_type then
        raise exception 'column % of %, the table of inbox "%", is no longer of type %',
            quote_ident(box.event_id_col), named, box.name, box.event_id_type using
            errcode = 'invalid_table_definition', hint = 'Give it that type again, or forget the inbox and track the table again.';
    end if;
end $$;

-- A statement that inserted nothing, because every row was known, wakes no one.
create or replace function tide.inbox_notify() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_notify('tide_inbox', tg_argv[0]) from arrived limit 1;
    return null;
end $$;

-- The statement that writes a batch: arrays of event ids, types, sources, aggregate ids, sequences, payloads, headers, trace ids.
-- received_at is written, as a table that was there before may have no default for it.
create or replace function tide.inbox_insert(box tide.inbox) returns text
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic
    select format('insert into %I.%I '
        '(%I, event_type, source, aggregate_id, event_sequence, payload, headers, trace_id, received_at) '
        'select r.event_id::%s, r.event_type, r.source, r.aggregate_id, r.event_sequence, r.payload::jsonb, '
        '       coalesce(r.headers, ''{}'')::jsonb, r.trace_id, now() '
        '  from unnest($1, $2, $3, $4, $5, $6, $7, $8) as '
        '       r (event_id, event_type, source, aggregate_id, event_sequence, payload, headers, trace_id) '
        'on conflict (%3$I) do nothing', (box).table_schema, (box).table_name, (box).event_id_col, (box).event_id_type);
end;

-- Each inbox has a function of its own, tide.inbox_write_<number>, because to plan its INSERT takes longer than to write a few rows, and
-- to look at its table longer still: the plan is kept, and so is what tide.inbox_is_plain says. A database that lacks one is as right.
-- It is asked before the lock, as only a table is locked, and under the lock, when PostgreSQL knows what others have done to the table.
create or replace function tide.inbox_write_copy(box tide.inbox) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    named    text := format('%I.%I', box.table_schema, box.table_name);
    is_plain text := format('tide.inbox_is_plain(%L::regclass, %L, %L)', named, box.event_id_col, box.event_id_type);
begin
    execute format('create or replace function tide.inbox_write_%s(text[], text[], text[], text[], bigint[], text[], text[], text[]) '
                   'returns bigint language plpgsql set search_path = pg_catalog, pg_temp as %L', box.inbox_id,
                   format('declare written bigint; begin '
                          'if %1$s then lock table only %2$s in row exclusive mode; end if; '
                          'if not %1$s then perform tide.inbox_guard(i, ''row exclusive'') from tide.inbox i where i.inbox_id = %3$s; end if; '
                          '%4$s; get diagnostics written = row_count; return written; end',
                          is_plain, named, box.inbox_id, tide.inbox_insert(box)));
    execute format('revoke all on function tide.inbox_write_%s from public', box.inbox_id);
end $$;

-- The relay needs no right on the table itself.
create or replace function tide.inbox_write(
    inbox text, event_ids text[], event_types text[], sources text[], aggregate_ids text[], event_sequences bigint[],
    payloads text[], headers text[], trace_ids text[]
) returns bigint
language plpgsql security definer
-- One plan for all calls, also in what is called.
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
declare
    id      int;
    named   text;
    given   bigint := coalesce(cardinality(event_ids), 0);
    bytes   bigint := coalesce(pg_column_size(payloads), 0)::bigint + coalesce(pg_column_size(headers), 0)
                      + coalesce(pg_column_size(event_ids), 0) + coalesce(pg_column_size(event_types), 0)
                      + coalesce(pg_column_size(sources), 0) + coalesce(pg_column_size(aggregate_ids), 0)
                      + coalesce(pg_column_size(trace_ids), 0);
    written bigint;
begin
    select i.inbox_id, format('%I.%I', i.table_schema, i.table_name) into id, named from tide.inbox i where i.name = inbox;
    if id is null then
        perform tide.find_inbox(inbox);
    -- JSON cannot be larger; and what is larger together is better written in parts, as the relay then does.
    elsif bytes > 268435456 then
        raise exception 'inbox "%" was given % bytes in one call, the limit is 268435456', inbox, bytes using
            errcode = 'program_limit_exceeded', hint = 'Nothing was written. Write fewer messages in a call.';
    end if;
    if to_regclass(named) is not null and to_regproc('tide.inbox_write_' || id) is not null then
        execute format('select tide.inbox_write_%s($1, $2, $3, $4, $5, $6, $7, $8)', id) into written
          using event_ids, event_types, sources, aggregate_ids, event_sequences, payloads, headers, trace_ids;
    else
        perform tide.inbox_guard(i, 'row exclusive') from tide.inbox i where i.inbox_id = id;
        execute (select tide.inbox_insert(i) from tide.inbox i where i.inbox_id = id)
          using event_ids, event_types, sources, aggregate_ids, event_sequences, payloads, headers, trace_ids;
        get diagnostics written = row_count;
    end if;
    if written < given then
        insert into tide.inbox_duplicates (inbox_id, messages) values (id, given - written);
    end if;
    return written;
end $$;
comment on function tide.inbox_write is 'Writes messages that are not there yet; returns how many. Payloads and headers are JSON texts.';

-- What `relay api` needs beside writing: to tell a repetition from another message under the same id. And its rights,
-- which are fewer than those of schedulers and workers, because anyone can talk to it.
create or replace function tide.inbox_look(inbox text, event_ids text[], payloads text[])
returns table (is_new boolean, is_same boolean)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.inbox := tide.find_inbox(inbox);
begin
    perform tide.inbox_guard(box, 'access share');
    -- received_at is when a transaction began: what this one has written was written now.
    return query execute format(
        'select i.received_at = now(), i.payload = r.payload::jsonb '
        '  from unnest($1, $2) with ordinality as r (event_id, payload, n) '
        '  left join %I.%I i on i.%I = r.event_id::%s order by r.n',
        box.table_schema, box.table_name, box.event_id_col, box.event_id_type)
        using event_ids, payloads;
end $$;
comment on function tide.inbox_look is
    'For each message, right after writing it: whether this transaction wrote it, and whether it is the one that is stored.';
