-- Inboxes whose messages are claimed in the order of their aggregates, or by priority.

create or replace function tide.inbox_check_column(box tide.inbox, col name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from pg_attribute a where a.attrelid = tide.inbox_relation(box)::regclass
                      and a.attname = col and a.attnum > 0 and not a.attisdropped) then
        raise exception 'inbox "%" has no column %', box.name, coalesce(quote_ident(col), 'NULL') using
            errcode = 'undefined_column', hint = format('Its table is %s.', tide.inbox_relation(box));
    end if;
end $$;

create or replace function tide.enable_inbox_ordering(inbox text, aggregate_id_col text default 'aggregate_id', seq_col text default 'event_sequence')
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box      tide.inbox := tide.find_inbox(inbox);
    relation text := tide.inbox_relation(box);
begin
    perform tide.inbox_check_column(box, aggregate_id_col), tide.inbox_check_column(box, seq_col);
    if box.seq_col is not null then
        if (box.aggregate_id_col, box.seq_col) = (aggregate_id_col, seq_col) then
            return;
        end if;
        perform tide.disable_inbox_ordering(inbox);
    elsif to_regclass(format('%I.%I', box.table_schema, 'next_' || box.name)) is not null then
        raise exception 'inbox "%" needs a name that is taken in schema %: %',
            inbox, quote_ident(box.table_schema), quote_ident('next_' || box.name) using
            errcode = 'duplicate_table', hint = 'Rename what is there.';
    end if;
    update tide.inbox i set aggregate_id_col = enable_inbox_ordering.aggregate_id_col, seq_col = enable_inbox_ordering.seq_col
     where i.inbox_id = box.inbox_id returning * into box;
    -- The heads; who has a message in hand; and the last that was done, for gaps.
    execute format('create index %I on %s (%I, %I, inbox_seq) where processed_at is null',
                   box.name || '_tide_order', relation, aggregate_id_col, seq_col);
    execute format('create index %I on %s (%I) where processed_at is null and claimed_by is not null',
                   box.name || '_tide_claimed', relation, aggregate_id_col);
    execute format('create index %I on %s (%I, %I) where processed_at is not null',
                   box.name || '_tide_past', relation, aggregate_id_col, seq_col);
    execute format('create view %I.%I as %s where %s union all select * from %s i where i.%I is null and %s',
                   box.table_schema, 'next_' || box.name, tide.inbox_heads(box), tide.inbox_pending(box, 'h.'),
                   relation, aggregate_id_col, tide.inbox_pending(box, 'i.'));
end $$;
comment on function tide.enable_inbox_ordering is
    'From now on messages of an aggregate are claimed one by one in the order of seq_col; the view next_<inbox> shows who is next.';

create or replace function tide.disable_inbox_ordering(inbox text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box    tide.inbox := tide.find_inbox(inbox);
    suffix text;
begin
    if box.seq_col is null then
        return;
    end if;
    execute format('drop view if exists %I.%I', box.table_schema, 'next_' || box.name);
    foreach suffix in array array['_tide_order', '_tide_claimed', '_tide_past'] loop
        execute format('drop index if exists %I.%I', box.table_schema, box.name || suffix);
    end loop;
    update tide.inbox i set aggregate_id_col = null, seq_col = null where i.inbox_id = box.inbox_id;
end $$;

create or replace function tide.enable_inbox_priority(inbox text, priority_col text, descending boolean default true) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box tide.inbox := tide.find_inbox(inbox);
begin
    perform tide.inbox_check_column(box, priority_col);
    execute format('drop index if exists %I.%I', box.table_schema, box.name || '_tide_first');
    execute format('create index %I on %s (%I %s nulls last, inbox_seq) where %s',
                   box.name || '_tide_first', tide.inbox_relation(box), priority_col,
                   case when coalesce(descending, true) then 'desc' else 'asc' end, tide.inbox_pending(box));
    update tide.inbox i
       set priority_col = enable_inbox_priority.priority_col, priority_descending = coalesce(descending, true)
     where i.inbox_id = box.inbox_id;
end $$;
comment on function tide.enable_inbox_priority is
    'From now on messages with the highest value (descending: the highest first) are claimed first, and those without one last.';

create or replace function tide.disable_inbox_priority(inbox text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box tide.inbox := tide.find_inbox(inbox);
begin
    update tide.inbox i set priority_col = null where i.inbox_id = box.inbox_id;
    execute format('drop index if exists %I.%I', box.table_schema, box.name || '_tide_first');
end $$;

create or replace function tide.inbox_ordering_gaps(inbox text) returns table (aggregate_id text, expected bigint, found bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.inbox := tide.find_inbox(inbox);
begin
    perform tide.inbox_require_sight(box);
    if box.seq_col is null then
        raise exception 'inbox "%" has no order', inbox using
            errcode = 'object_not_in_prerequisite_state', hint = format('Give it one: select tide.enable_inbox_ordering(%L);', inbox);
    end if;
    perform tide.inbox_guard(box, 'access share');
    if (select a.atttypid::regtype not in ('smallint'::regtype, 'int'::regtype, 'bigint'::regtype) from pg_attribute a
            where a.attrelid = tide.inbox_relation(box)::regclass and a.attname = box.seq_col) then
        raise exception 'column % of inbox "%" does not count: its type is no whole number', quote_ident(box.seq_col), inbox using
            errcode = 'datatype_mismatch', hint = 'Gaps are known only where a message''s sequence is one more than the last.';
    end if;
    return query execute format(
        'select u.aggregate::text, u.before + 1, u.seq from ('
        'select i.%2$I as aggregate, i.%3$I::bigint as seq, coalesce('
        'lag(i.%3$I::bigint) over (partition by i.%2$I order by i.%3$I), '
        -- Of the first one: the last before it that was done, if it is still there.
        '(select max(d.%3$I)::bigint from %1$s d where d.%2$I = i.%2$I and d.%3$I <= i.%3$I and d.processed_at is not null)) as before '
        'from %1$s i where i.processed_at is null and i.%2$I is not null and i.%3$I is not null) u '
        'where u.seq > u.before + 1 order by 1, 3', tide.inbox_relation(box), box.aggregate_id_col, box.seq_col);
end $$;
comment on function tide.inbox_ordering_gaps is
    'Where the sequence of an aggregate has a hole before a message that is not processed: the number expected, and the one found.';

-- FNV-1a, 64 bits, of the UTF-8 bytes. The state is kept as two halves of 32 bits, since bigint cannot hold a product of
-- 64: the prime is 2^40 + 435.
create or replace function tide.inbox_is_my_partition(aggregate_id text, worker int, workers int) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    bytes bytea := convert_to(coalesce(aggregate_id, ''), 'UTF8');
    high  bigint := 3421674724;
    low   bigint := 2216829733;
    step  bigint;
begin
    if worker is null or workers is null or workers < 1 or worker not between 0 and workers - 1 then
        raise exception 'there is no worker % of %', coalesce(worker::text, 'NULL'), coalesce(workers::text, 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'Workers are counted from 0: of 4 they are 0, 1, 2 and 3.';
    end if;
    for at in 0 .. octet_length(bytes) - 1 loop
        low := low # get_byte(bytes, at);
        step := low * 435;
        high := (high * 435 + (low << 8) + (step >> 32)) & 4294967295;
        low := step & 4294967295;
    end loop;
    return ((high % workers) * (4294967296 % workers) + low) % workers = worker;
end $$;
comment on function tide.inbox_is_my_partition is
    'Whether FNV-1a 64 of the aggregate id, modulo workers, is this worker''s number, counted from 0. Null counts as the empty text.';
