-- Working off an inbox: claims, retries, dead messages, views, order.
--
-- The state of a message is in its row, so that applications which UPDATE it directly need nothing of ours:
--   processed   processed_at is not null
--   dead        processed_at is null and retry_count >= N, N = max_retries, at least 1
--   pending     the others. One with available_at ahead is left alone until then: claimed_by says for whom it is kept,
--               or is null, after a failure.
-- N is a constant of each inbox, written into its indexes and views: the planner uses a partial index only for a
-- condition that it can prove. Functions that touch messages run with the caller's rights: what a role may do with an
-- inbox is what it may do with the table.

create function tide.inbox_pending(box tide.inbox, prefix text default '') returns text
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic
    select format('%1$sprocessed_at is null and %1$sretry_count < %2$s', prefix, greatest((box).max_retries, 1));
end;

create function tide.inbox_dead(box tide.inbox, prefix text default '') returns text
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic
    select format('%1$sprocessed_at is null and %1$sretry_count >= %2$s', prefix, greatest((box).max_retries, 1));
end;

create function tide.inbox_relation(box tide.inbox) returns text
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic select format('%I.%I', (box).table_schema, (box).table_name); end;

-- Making and removing inboxes -----------------------------------------------------------------------------------------

-- For applications that count failures by themselves: when a message died is what its retention is counted from.
create function tide.inbox_failed() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    new.failed_at := clock_timestamp();
    return new;
end $$;

create function tide.inbox_refuse_name(name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not tide.setting_is_on('inbox_enabled') then
        raise exception 'inbox % cannot be created: inboxes are turned off in this database', coalesce(quote_ident(name), 'NULL') using
            errcode = 'object_not_in_prerequisite_state',
            hint = 'Turn them on: select tide.setting_set(''inbox_enabled'', ''true'');';
    elsif name is null or name !~ '^[A-Za-z0-9_][A-Za-z0-9_-]{0,49}$' then
        raise exception 'inbox name % is not valid', coalesce(quote_literal(name), 'NULL') using
            errcode = 'invalid_name', hint = 'Use 1 to 50 letters, digits, "_" and "-", not starting with "-".';
    elsif exists (select from tide.inbox i where i.name = inbox_refuse_name.name) then
        raise exception 'inbox "%" exists already', name using
            errcode = 'duplicate_object', hint = 'Choose another name, or drop it first: select tide.inbox_drop(...);';
    end if;
end $$;

-- What the database has beside the table, under names made of the inbox's: 50 characters and these endings fit in 63.
create function tide.inbox_build(box tide.inbox) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    relation text := tide.inbox_relation(box);
    taken    text;
begin
    select string_agg(quote_ident(c.relname), ', ' order by c.relname) into taken
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = box.table_schema
       and (c.relname in (box.name || '_pending', 'next_' || box.name)
            or c.relname = box.name || '_dlq' and box.with_dead_letter
            or c.relname = box.name || '_stats' and box.with_stats);
    if taken is not null then
        raise exception 'inbox "%" needs names that are taken in schema %: %', box.name, quote_ident(box.table_schema), taken using
            errcode = 'duplicate_table', hint = 'Choose another name for the inbox, or another schema, or rename what is there.';
    end if;
    -- What waits for its time, by that, and behind it, without one, what can be claimed at once, in the order of arrival: a
    -- claim passes over none of the others, however many wait for a retry. What was done and what is dead, for retention.
    execute format('create index %I on %s (available_at, inbox_seq) where %s',
                   box.name || '_tide_pending', relation, tide.inbox_pending(box));
    execute format('create index %I on %s (processed_at) where processed_at is not null', box.name || '_tide_done', relation);
    execute format('create index %I on %s (failed_at) where %s', box.name || '_tide_dead', relation, tide.inbox_dead(box));
    execute format('create trigger tide_inbox after insert on %s referencing new table as arrived '
                   'for each statement execute function tide.inbox_notify(%L)', relation, box.name);
    execute format('create trigger tide_inbox_failed before update of retry_count on %s for each row '
                   'when (new.retry_count > old.retry_count and new.failed_at is not distinct from old.failed_at) '
                   'execute function tide.inbox_failed()', relation);
    execute format('create view %I.%I as select * from %s where %s',
                   box.table_schema, box.name || '_pending', relation, tide.inbox_pending(box));
    if box.with_dead_letter then
        execute format('create view %I.%I as select * from %s where %s',
                       box.table_schema, box.name || '_dlq', relation, tide.inbox_dead(box));
    end if;
    if box.with_stats then
        execute format('create view %I.%I as select event_type, count(*) filter (where %s) as pending, '
                       'count(processed_at) as processed, count(*) filter (where %s) as dead, '
                       'min(received_at) filter (where %3$s) as oldest_pending_at, max(processed_at) as last_processed_at '
                       'from %5$s group by event_type',
                       box.table_schema, box.name || '_stats', tide.inbox_pending(box), tide.inbox_dead(box), relation);
    end if;
end $$;

create function tide.inbox_create(
    name text, schema text default 'tide', max_retries int default 3, with_dead_letter boolean default true,
    with_stats boolean default true, processed_retention_hours int default null, dead_retention_hours int default null
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.inbox;
begin
    perform tide.inbox_refuse_name(name);
    if num_nulls(schema, max_retries, with_dead_letter, with_stats) > 0 then
        raise exception 'schema, max_retries, with_dead_letter and with_stats of inbox "%" must not be NULL', name using
            errcode = 'null_value_not_allowed', hint = 'Leave an argument out for its default.';
    elsif schema = 'tide' and name ~ '^message(_|$)' then
        raise exception 'inbox name "%" is one that outboxes use in schema tide', name using
            errcode = 'invalid_name', hint = 'Choose another name, or another schema.';
    elsif to_regclass(format('%I.%I', schema, name)) is not null then
        raise exception 'a relation % is there already in schema %', quote_ident(name), quote_ident(schema) using
            errcode = 'duplicate_table',
            hint = 'Choose another name. A table of your own becomes an inbox by tide.enable_inbox_tracking(...).';
    end if;
    insert into tide.inbox (name, table_schema, table_name, max_retries, with_dead_letter, with_stats,
                            processed_retention_hours, dead_retention_hours)
    values (name, schema, name, max_retries, with_dead_letter, with_stats, processed_retention_hours, dead_retention_hours)
    returning * into box;
    execute format('create table %I.%I ('
        'event_id text primary key, '
        -- The order of arrival: received_at is the same for a whole batch.
        'inbox_seq bigint generated always as identity, '
        'event_type text, source text, aggregate_id text, event_sequence bigint, payload jsonb, '
        'headers jsonb not null default ''{}'', trace_id text, '
        'received_at timestamptz not null default now(), processed_at timestamptz, error text, '
        'retry_count int not null default 0, failed_at timestamptz, claimed_by text, available_at timestamptz) '
        'with (autovacuum_vacuum_scale_factor = 0.02)', schema, name);
    perform tide.inbox_build(box);
end $$;
comment on function tide.inbox_create is
    'Makes an inbox: a table of that name in schema, and its views. Whoever listens to tide_inbox hears its name when rows arrive.';

-- Takes away what inbox_build and the enable functions have made, and the name; a table that was not there before, too.
create function tide.inbox_forget(box tide.inbox) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    used_by text;
    view    text;
begin
    select string_agg(format('%I', p.name), ', ' order by p.name) into used_by
      from tide.pipeline p where p.inbox_id = box.inbox_id;
    if used_by is not null then
        raise exception 'inbox "%" is written by pipelines: %', box.name, used_by using
            errcode = 'dependent_objects_still_exist', hint = 'Delete them first: select tide.relay_delete(...);';
    end if;
    delete from tide.inbox i where i.inbox_id = box.inbox_id;
    begin
        foreach view in array array_remove(array[
            box.name || '_pending', case when box.with_dead_letter then box.name || '_dlq' end,
            case when box.with_stats then box.name || '_stats' end, case when box.seq_col is not null then 'next_' || box.name end], null)
        loop
            execute format('drop view if exists %I.%I', box.table_schema, view);
        end loop;
        if not box.tracked then
            execute format('drop table if exists %s', tide.inbox_relation(box));
        end if;
    exception when dependent_objects_still_exist then
        get stacked diagnostics used_by = pg_exception_detail;
        raise exception 'inbox "%" is used by other objects of the database', box.name using
            errcode = 'dependent_objects_still_exist', detail = used_by, hint = 'Drop them first.';
    end;
end $$;

create function tide.inbox_drop(name text, if_exists boolean default false) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box tide.inbox;
begin
    select * into box from tide.inbox i where i.name = inbox_drop.name;
    if not found then
        if not if_exists then
            perform tide.find_inbox(name);
        end if;
        return;
    elsif box.tracked then
        raise exception 'inbox "%" is the table %, which was there before', name, tide.inbox_relation(box) using
            errcode = 'object_not_in_prerequisite_state',
            hint = format('Let it be an ordinary table again: select tide.disable_inbox_tracking(%L);', name);
    end if;
    perform tide.inbox_forget(box);
end $$;
comment on function tide.inbox_drop is 'Removes the inbox, its views and all its messages, processed or not.';

-- Claiming ------------------------------------------------------------------------------------------------------------
--
-- The texts below are parts of the statements of tide.inbox_claim, in which $1 is the worker, $2 the end of its lease,
-- $3 the present, and $4 ids. Sizes are written out, so that the planner knows them.

create function tide.inbox_claimable(box tide.inbox) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select format('%s and (i.available_at is null or i.available_at <= $3)', tide.inbox_pending(box, 'i.'));
end;

-- The ids of the first messages that can be claimed. Without a priority: those whose lease or pause is over, which came
-- before the others, and then the others. `locking` is part of each branch, as PostgreSQL has none around a union; the
-- limit around it ends the work in the first branch that has enough.
create function tide.inbox_waiting(box tide.inbox, size int, locking text default '') returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select case when (box).priority_col is not null then format(
        'select i.%1$I as id from %2$s i where %3$s order by i.%4$I %5$s nulls last, i.inbox_seq limit %6$s %7$s',
        (box).event_id_col, tide.inbox_relation(box), tide.inbox_claimable(box), (box).priority_col,
        case when (box).priority_descending then 'desc' else 'asc' end, size, locking)
    else format(
        'select w.id from (select * from (select i.%1$I as id from %2$s i where %3$s and i.available_at <= $3 '
        'order by i.available_at limit %4$s %5$s) due union all select * from (select i.%1$I from %2$s i '
        'where %3$s and i.available_at is null order by i.available_at, i.inbox_seq limit %4$s %5$s) fresh) w limit %4$s',
        (box).event_id_col, tide.inbox_relation(box), tide.inbox_pending(box, 'i.'), size, locking)
    end;
end;

-- Whether a message may go: it is the head of its aggregate, which is the unprocessed message with the lowest sequence.
-- A dead message stays the head, and what comes after it waits, until it is replayed or marked as processed. One that
-- came late goes ahead of one that somebody works on, and waits for that one all the same.
create function tide.inbox_is_next(box tide.inbox) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select format('(i.%2$I is null or i.%3$I = (select n.%3$I from %1$s n where n.%2$I = i.%2$I and n.processed_at is null '
                  'order by n.%2$I, n.%4$I, n.inbox_seq limit 1) '
                  'and not exists (select from %1$s c where c.%2$I = i.%2$I and c.processed_at is null '
                  'and c.claimed_by is not null and c.available_at > $3))',
                  tide.inbox_relation(box), (box).aggregate_id_col, (box).event_id_col, (box).seq_col);
end;

-- The heads of all aggregates, by a walk along the index: one step for each aggregate, however much each has.
create function tide.inbox_heads(box tide.inbox) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select format('with recursive aggregate (id) as ('
                  '(select i.%2$I from %1$s i where i.processed_at is null and i.%2$I is not null order by i.%2$I limit 1) '
                  'union all '
                  'select (select i.%2$I from %1$s i where i.processed_at is null and i.%2$I > a.id order by i.%2$I limit 1) '
                  'from aggregate a where a.id is not null) '
                  'select h.* from aggregate a cross join lateral (select n.* from %1$s n where n.%2$I = a.id '
                  'and n.processed_at is null order by n.%2$I, n.%3$I, n.inbox_seq limit 1) h',
                  tide.inbox_relation(box), (box).aggregate_id_col, (box).seq_col);
end;

-- Of candidates, the ids of those that may go, with their rows locked.
create function tide.inbox_lock(box tide.inbox, candidates text, size int) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select format('select array_agg(l.id) from (select i.%1$I::text as id from (%2$s) w join %3$s i on i.%1$I = w.id '
                  'where %4$s and %5$s and i.%1$I::text <> all ($4) limit %6$s for update of i skip locked) l',
                  (box).event_id_col, candidates, tide.inbox_relation(box), tide.inbox_claimable(box),
                  tide.inbox_is_next(box), size);
end;

-- Among the messages that wait longest; and where all these are of a few aggregates, among the heads of the others.
create function tide.inbox_lock_next(box tide.inbox, size int, at timestamptz) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    look_at int := 4 * size + 256;
    waiting text := tide.inbox_waiting(box, look_at);
    seen    int;
    ids     text[];
    more    text[];
begin
    execute tide.inbox_lock(box, waiting, size) into ids
      using null::text, null::timestamptz, at, array[]::text[];
    if coalesce(cardinality(ids), 0) < size then
        execute format('select count(*) from (%s) w', waiting) into seen using null::text, null::timestamptz, at;
        if seen = look_at then
            execute tide.inbox_lock(box, format('select h.%I as id from (%s) h', box.event_id_col, tide.inbox_heads(box)),
                                    size - coalesce(cardinality(ids), 0))
               into more using null::text, null::timestamptz, at, coalesce(ids, '{}');
        end if;
    end if;
    return coalesce(ids, '{}') || coalesce(more, '{}');
end $$;

-- The ids of those whose aggregate nobody else is about to claim. A claim that is not committed yet is not to be seen;
-- its lock is. What the holders of these locks committed before is seen by the statements after this.
create function tide.inbox_lock_aggregates(box tide.inbox, ids text[]) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    locked text[];
begin
    execute format('select array_agg(i.id) from (select i.%1$I::text as id, i.%2$I::text as aggregate from %3$s i '
                   'where i.%1$I = any ($1::%4$s[]) offset 0) i '
                   'where i.aggregate is null or pg_try_advisory_xact_lock(hashtextextended(i.aggregate, $2))',
                   box.event_id_col, box.aggregate_id_col, tide.inbox_relation(box), box.event_id_type)
       into locked using ids, box.inbox_id;
    return coalesce(locked, '{}');
end $$;

-- The settings keep statements along the indexes, however old the statistics of a table are that fills and empties.
create function tide.inbox_claim(
    inbox text, worker text, batch_size int default 100, visibility_seconds int default 30
) returns table (
    event_id text, inbox_seq bigint, event_type text, source text, aggregate_id text, event_sequence bigint, payload jsonb,
    headers jsonb, trace_id text, received_at timestamptz, retry_count int, claimed_until timestamptz
)
language plpgsql set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    box    tide.inbox := tide.find_inbox(inbox);
    at     timestamptz := clock_timestamp();
    ids    text[] := '{}';
    chosen text;
begin
    if coalesce(worker, '') = '' then
        raise exception 'a claim of inbox "%" needs the name of a worker', inbox using
            errcode = 'invalid_parameter_value', hint = 'Give each worker a name of its own: by it a lease is known.';
    elsif batch_size is null or batch_size not between 1 and 10000 then
        raise exception 'batch_size is %, it must be between 1 and 10000', coalesce(batch_size::text, 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'Nothing was claimed.';
    elsif visibility_seconds is null or visibility_seconds not between 1 and 86400 then
        raise exception 'visibility_seconds is %, it must be between 1 and 86400', coalesce(visibility_seconds::text, 'NULL')
            using errcode = 'invalid_parameter_value', hint = 'Nothing was claimed.';
    end if;
    if box.seq_col is null then
        chosen := format('i.%I = any (array(%s))', box.event_id_col,
                         tide.inbox_waiting(box, batch_size, 'for update skip locked'));
    elsif current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'inbox "%" has an order, and can be claimed only in READ COMMITTED', inbox using
            errcode = 'active_sql_transaction', hint = 'An older snapshot does not show what others have claimed.';
    else
        -- Each aggregate is a lock until the transaction ends, and the server has room for some thousands, for everybody.
        ids := tide.inbox_lock_aggregates(box, tide.inbox_lock_next(box, least(batch_size, 1000), at));
        chosen := format('i.%I = any ($4::%s[]) and %s and %s', box.event_id_col, box.event_id_type, tide.inbox_claimable(box), tide.inbox_is_next(box));
    end if;
    return query execute format(
        'with claimed as (update %1$s i set claimed_by = $1, available_at = $2 where %3$s returning i.*) '
        'select i.%2$I::text, i.inbox_seq, i.event_type::text, i.source::text, i.aggregate_id::text, i.event_sequence::bigint, '
        'i.payload, i.headers, i.trace_id::text, i.received_at, i.retry_count, i.available_at '
        'from claimed i order by %4$s i.inbox_seq',
        tide.inbox_relation(box), box.event_id_col, chosen,
        case when box.priority_col is not null then
            format('i.%I %s nulls last,', box.priority_col, case when box.priority_descending then 'desc' else 'asc' end) end)
        using worker, at + make_interval(secs => visibility_seconds), at, ids;
end $$;
comment on function tide.inbox_claim is
    'Leases messages to a worker. Nobody else is given them until the lease is over, or until this transaction is, if it is rolled back.';

-- Marking -------------------------------------------------------------------------------------------------------------

-- Along the index of the ids, on which a list of ids is sorted: so all who change rows by such lists lock them in one order.
create function tide.inbox_mark_processed(inbox text, event_ids text[], worker text default null) returns int
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    box    tide.inbox := tide.find_inbox(inbox);
    marked int;
begin
    execute format('update %s i set processed_at = clock_timestamp(), claimed_by = null, available_at = null '
                   'where i.%I = any ($1::%s[]) and i.processed_at is null and ($2 is null or i.claimed_by = $2)',
                   tide.inbox_relation(box), box.event_id_col, box.event_id_type) using event_ids, worker;
    get diagnostics marked = row_count;
    return marked;
end $$;
comment on function tide.inbox_mark_processed is
    'Marks messages as processed and returns how many. With a worker, only those that it still holds.';

create function tide.inbox_release(inbox text, event_ids text[], worker text) returns int
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    box      tide.inbox := tide.find_inbox(inbox);
    released int;
begin
    execute format('update %s i set claimed_by = null, available_at = null '
                   'where i.%I = any ($1::%s[]) and i.processed_at is null and i.claimed_by = $2',
                   tide.inbox_relation(box), box.event_id_col, box.event_id_type) using event_ids, worker;
    get diagnostics released = row_count;
    return released;
end $$;
comment on function tide.inbox_release is 'Gives back claimed messages that the worker has not begun; returns how many. No failure is counted.';

create function tide.inbox_mark_failed(
    inbox text, event_id text, error text, worker text default null, retry_seconds float8 default null
) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    box      tide.inbox := tide.find_inbox(inbox);
    attempts int;
    row_now  record;
begin
    if retry_seconds not between 0 and 31536000 then
        raise exception 'retry_seconds is %, it must be between 0 and 31536000', retry_seconds using
            errcode = 'invalid_parameter_value', hint = 'Leave it out for a pause that grows with every failure.';
    end if;
    -- The pause doubles from 1 to 2 seconds up to five minutes; half of it is chance, so that failures of one moment part.
    execute format('update %1$s i set retry_count = i.retry_count + 1, error = $2, failed_at = clock_timestamp(), claimed_by = null, '
                   'available_at = clock_timestamp() + make_interval(secs => coalesce($4, '
                   'least(2 ^ least(i.retry_count + 1, 20), 300) * (0.5 + random() / 2))) '
                   'where i.%2$I = $1::%3$s and %4$s and ($3 is null or i.claimed_by = $3) returning i.retry_count',
                   tide.inbox_relation(box), box.event_id_col, box.event_id_type, tide.inbox_pending(box, 'i.'))
       into attempts using event_id, error, worker, retry_seconds;
    if attempts is not null then
        return case when attempts >= greatest(box.max_retries, 1) then 'dead' else 'retry' end;
    end if;
    execute format('select i.processed_at, i.retry_count from %s i where i.%I = $1::%s',
                   tide.inbox_relation(box), box.event_id_col, box.event_id_type) into row_now using event_id;
    if row_now is null then
        raise exception 'inbox "%" has no message %', inbox, coalesce(quote_literal(event_id), 'NULL') using
            errcode = 'no_data_found', hint = 'It may have been removed, when it was processed long ago.';
    end if;
    return case when row_now.processed_at is not null then 'processed'
                when row_now.retry_count >= greatest(box.max_retries, 1) then 'dead' else 'not held' end;
end $$;
comment on function tide.inbox_mark_failed is
    'Counts a failure: "retry", or "dead" when it was the last. "processed" or "not held": nothing was changed.';

create function tide.replay_inbox_messages(inbox text, event_ids text[]) returns int
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    box      tide.inbox := tide.find_inbox(inbox);
    replayed int;
    unknown  text;
begin
    execute format('update %1$s i set processed_at = null, retry_count = 0, error = null, failed_at = null, '
                   'claimed_by = null, available_at = null where i.%2$I = any ($1::%3$s[]) '
                   'and (i.processed_at is not null or i.retry_count > 0) '
                   -- Somebody works on it.
                   'and (i.processed_at is not null or i.claimed_by is null or i.available_at <= clock_timestamp())',
                   tide.inbox_relation(box), box.event_id_col, box.event_id_type) using event_ids;
    get diagnostics replayed = row_count;
    execute format('select string_agg(quote_literal(g.id), '', '') from (select g.id from unnest($1) g (id) '
                   'where not exists (select from %s i where i.%I = g.id::%s) limit 10) g',
                   tide.inbox_relation(box), box.event_id_col, box.event_id_type) into unknown using event_ids;
    if unknown is not null then
        raise notice 'inbox "%" has no message %', inbox, unknown;
    end if;
    if replayed > 0 then
        perform pg_notify('tide_inbox', box.name);
    end if;
    return replayed;
end $$;
comment on function tide.replay_inbox_messages is
    'Makes processed, failed and dead messages pending again, as if they had just come; returns how many. Not those that somebody works on.';

-- Order and priority --------------------------------------------------------------------------------------------------

create function tide.inbox_check_column(box tide.inbox, col name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from pg_attribute a where a.attrelid = tide.inbox_relation(box)::regclass
                      and a.attname = col and a.attnum > 0 and not a.attisdropped) then
        raise exception 'inbox "%" has no column %', box.name, coalesce(quote_ident(col), 'NULL') using
            errcode = 'undefined_column', hint = format('Its table is %s.', tide.inbox_relation(box));
    end if;
end $$;

create function tide.enable_inbox_ordering(inbox text, aggregate_id_col text default 'aggregate_id', seq_col text default 'event_sequence')
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

create function tide.disable_inbox_ordering(inbox text) returns void
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

create function tide.enable_inbox_priority(inbox text, priority_col text, descending boolean default true) returns void
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

create function tide.disable_inbox_priority(inbox text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box tide.inbox := tide.find_inbox(inbox);
begin
    update tide.inbox i set priority_col = null where i.inbox_id = box.inbox_id;
    execute format('drop index if exists %I.%I', box.table_schema, box.name || '_tide_first');
end $$;

create function tide.inbox_ordering_gaps(inbox text) returns table (aggregate_id text, expected bigint, found bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.inbox := tide.find_inbox(inbox);
begin
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
create function tide.inbox_is_my_partition(aggregate_id text, worker int, workers int) returns boolean
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

-- How an inbox is doing -----------------------------------------------------------------------------------------------

create function tide.inbox_status(inbox text default null) returns table (
    name text, table_schema name, table_name name, pending bigint, claimed bigint, retrying bigint, processed bigint,
    dead bigint, oldest_pending_seconds float8, duplicates bigint, total_bytes bigint
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.inbox;
begin
    if inbox is not null then
        perform tide.find_inbox(inbox);
    end if;
    for box in select * from tide.inbox i where inbox is null or i.name = inbox_status.inbox order by i.name loop
        begin
            perform tide.inbox_guard(box, 'access share');
        exception when insufficient_privilege or invalid_table_definition or wrong_object_type then
            -- One that cannot be looked at does not hide the others.
            if inbox is not null then
                raise;
            end if;
            name := box.name;
            table_schema := box.table_schema;
            table_name := box.table_name;
            return next;
            continue;
        end;
        -- In parts for which there are indexes: together they would be a look at every row.
        return query execute format(
            'select $1, $2, $3, f.pending, w.claimed, w.retrying, '
            '(select count(*) from %1$s i where i.processed_at is not null), (select count(*) from %1$s i where %2$s), '
            'case when f.pending > 0 then greatest(extract(epoch from clock_timestamp() - least(w.oldest, o.oldest)), 0)::float8 end, '
            '(select coalesce(sum(d.messages), 0)::bigint from tide.inbox_duplicates d where d.inbox_id = $4), '
            'pg_total_relation_size(%4$L) '
            'from (select count(*) as pending from %1$s i where %3$s) f, '
            '(select count(*) filter (where i.claimed_by is not null and i.available_at > clock_timestamp()) as claimed, '
            'count(*) filter (where i.claimed_by is null) as retrying, min(i.received_at) as oldest from %1$s i where %3$s and i.available_at is not null) w, '
            '(select (select i.received_at from %1$s i where %3$s and i.available_at is null order by i.available_at, i.inbox_seq limit 1) as oldest) o',
            tide.inbox_relation(box), tide.inbox_dead(box, 'i.'), tide.inbox_pending(box, 'i.'), tide.inbox_relation(box))
            using box.name, box.table_schema, box.table_name, box.inbox_id;
    end loop;
end $$;
comment on function tide.inbox_status is
    'A row for each inbox, or for one. pending includes the claimed and the retrying; oldest_pending_seconds is null when nothing waits; all is null of '
    'an inbox whose table cannot be read: ask for that one alone to be told why.';

create function tide.inbox_health(inbox text) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    box        tide.inbox := tide.find_inbox(inbox);
    alert      int := greatest(tide.setting_number('inbox_dlq_alert_max_per_refresh'), 1);
    now_is     record;
    done       bigint;
    newly_dead bigint;
    reasons    text[];
    critical   boolean;
begin
    perform tide.inbox_guard(box, 'access share');
    select * into now_is from tide.inbox_status(inbox);
    execute format('select (select count(*) from %1$s i where i.processed_at > clock_timestamp() - interval ''1 minute''), '
                   '(select count(*) from %1$s i where %2$s and i.failed_at > clock_timestamp() - interval ''5 minutes'')',
                   tide.inbox_relation(box), tide.inbox_dead(box, 'i.')) into done, newly_dead;
    critical := newly_dead >= alert or now_is.oldest_pending_seconds > 3600;
    reasons := array_remove(array[
        case when now_is.oldest_pending_seconds > 300
             then format('the oldest pending message waits for %s seconds', round(now_is.oldest_pending_seconds)) end,
        case when newly_dead > 0 then format('%s messages died within the last five minutes', newly_dead) end], null);
    return jsonb_build_object(
        'inbox', box.name,
        'status', case when critical then 'critical' when cardinality(reasons) > 0 then 'degraded' else 'healthy' end,
        'reasons', to_jsonb(reasons), 'pending', now_is.pending, 'claimed', now_is.claimed, 'retrying', now_is.retrying,
        'oldest_pending_seconds', now_is.oldest_pending_seconds, 'processed_per_minute', done,
        'duplicates', now_is.duplicates, 'dead', now_is.dead, 'dead_last_5_minutes', newly_dead);
end $$;
comment on function tide.inbox_health is
    'critical: the oldest pending message waits for more than an hour, or as many as the setting inbox_dlq_alert_max_per_refresh '
    'died within five minutes; degraded: five minutes, or one.';

-- Retention -----------------------------------------------------------------------------------------------------------

create function tide.inbox_remove(box tide.inbox, which text, before timestamptz, max_rows bigint) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    removed bigint;
begin
    execute format('delete from %1$s i where i.%2$I = any (array(select r.%2$I from %1$s r where %3$s limit $2 for update skip locked))',
                   tide.inbox_relation(box), box.event_id_col, which) using before, max_rows;
    get diagnostics removed = row_count;
    return removed;
end $$;

create function tide.inbox_retain(inbox text, max_rows int default 10000) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box             tide.inbox := tide.find_inbox(inbox);
    processed_hours int := coalesce(box.processed_retention_hours, tide.setting_number('inbox_processed_retention_hours'));
    dead_hours      int := coalesce(box.dead_retention_hours, tide.setting_number('inbox_dlq_retention_hours'));
    removed         bigint := 0;
begin
    if max_rows is null or max_rows < 1 then
        raise exception 'max_rows is %, it must be at least 1', coalesce(max_rows::text, 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'It is how many messages a call removes at most.';
    end if;
    perform tide.inbox_guard(box, 'row exclusive');
    if processed_hours > 0 then
        removed := tide.inbox_remove(box, 'r.processed_at < $1 order by r.processed_at',
                                     now() - make_interval(hours => processed_hours), max_rows);
    end if;
    if dead_hours > 0 and removed < max_rows then
        removed := removed + tide.inbox_remove(box, tide.inbox_dead(box, 'r.') || ' and r.failed_at < $1 order by r.failed_at',
                                               now() - make_interval(hours => dead_hours), max_rows - removed);
    end if;
    with old as (
        delete from tide.inbox_duplicates d where d.ctid = any (array(
            select s.ctid from tide.inbox_duplicates s where s.inbox_id = box.inbox_id limit max_rows for update skip locked))
        returning d.messages
    )
    insert into tide.inbox_duplicates (inbox_id, messages)
    select box.inbox_id, sum(o.messages) from old o having sum(o.messages) > 0;
    return removed;
end $$;
comment on function tide.inbox_retain is
    'Removes up to max_rows messages whose retention is over, processed ones first, and returns how many. An id that is removed is new again.';

-- Tables that were there before ---------------------------------------------------------------------------------------

create function tide.inbox_check_table(existing_table regclass, event_id_col text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    rel    pg_class;
    needed text := 'Make it so: alter table %1$s alter column %2$I set not null; create unique index on %1$s (%2$I);';
    col    pg_attribute;
begin
    select * into rel from pg_class c where c.oid = existing_table;
    select * into col from pg_attribute a where a.attrelid = existing_table and a.attname = event_id_col and a.attnum > 0;
    if rel.relkind is distinct from 'r' or rel.relpersistence = 't' then
        raise exception '% cannot become an inbox: it is no ordinary table', coalesce(existing_table::text, 'NULL') using
            errcode = 'wrong_object_type', hint = 'Partitioned, temporary and foreign tables and views cannot.';
    elsif rel.relnamespace = 'tide'::regnamespace then
        raise exception '% cannot become an inbox: it is a table of tide-relay', existing_table using errcode = 'wrong_object_type';
    elsif not pg_has_role(current_user, rel.relowner, 'usage') then
        raise exception '% belongs to %, not to %, who owns the schema tide', existing_table, rel.relowner::regrole, quote_ident(current_user)
            using errcode = 'insufficient_privilege',
            hint = format('Let the one act for the other: grant %s to %I;', rel.relowner::regrole, current_user);
    elsif not pg_has_role(tide.caller()::name, rel.relowner, 'usage') then
        raise exception '% belongs to %, not to %', existing_table, rel.relowner::regrole, quote_ident(tide.caller()) using
            errcode = 'insufficient_privilege', hint = 'Only the owner of a table, or a member of that role, can make it an inbox.';
    elsif col is null then
        raise exception '% has no column %', existing_table, coalesce(quote_ident(event_id_col), 'NULL') using
            errcode = 'undefined_column', hint = 'Name the column by which a message is known: event_id_col => ''...''.';
    elsif not col.attnotnull or not exists (
        select from pg_index x where x.indrelid = existing_table and x.indisunique and x.indisvalid and x.indimmediate
           and x.indnkeyatts = 1 and x.indkey[0] = col.attnum and x.indpred is null) then
        raise exception 'column % of % must be unique and not null: by it a message is known', quote_ident(event_id_col), existing_table
            using errcode = 'invalid_table_definition', hint = format(needed, existing_table, event_id_col);
    end if;
end $$;

-- Adds the columns of an inbox that a table lacks, in one statement. Those that it has must be of the same kinds.
create function tide.inbox_add_columns(existing_table regclass, existing_are_processed boolean) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    texts    regtype[] := array['text'::regtype, 'character varying'::regtype];
    instants regtype[] := array['timestamptz'::regtype];
    given    record;
    added    text[] := '{}';
begin
    for given in
        select w.*, a.attname is not null as present, a.atttypid::regtype as type, a.attnotnull, a.atthasdef or a.attidentity <> '' as filled
          from (values
            ('inbox_seq', 'bigint generated always as identity', array['bigint'::regtype], true),
            ('event_type', 'text', texts, false),
            ('source', 'text', texts, false),
            ('aggregate_id', 'text', texts, false),
            ('event_sequence', 'bigint', array['bigint'::regtype, 'int'::regtype], false),
            ('payload', 'jsonb', array['jsonb'::regtype], false),
            ('headers', 'jsonb not null default ''{}''', array['jsonb'::regtype], false),
            ('trace_id', 'text', texts, false),
            ('received_at', 'timestamptz not null default now()', instants, false),
            ('processed_at', case when existing_are_processed then 'timestamptz default now()' else 'timestamptz' end, instants, false),
            ('error', 'text', texts, false),
            ('retry_count', 'int not null default 0', array['int'::regtype], true),
            ('failed_at', 'timestamptz', instants, false),
            ('claimed_by', 'text', texts, false),
            ('available_at', 'timestamptz', instants, false)) w (name, definition, types, always)
          left join pg_attribute a on a.attrelid = existing_table and a.attname = w.name and a.attnum > 0 and not a.attisdropped
    loop
        if not given.present then
            added := added || format('add column %I %s', given.name, given.definition);
        elsif given.type <> all (given.types) then
            raise exception 'column % of % is of type %, an inbox needs %', given.name, existing_table, given.type, given.types[1]
                using errcode = 'datatype_mismatch', hint = 'Change its type, or rename it: an inbox then adds one of its own.';
        elsif given.always and not (given.attnotnull and given.filled) then
            raise exception 'column % of % must be not null and have a default', given.name, existing_table
                using errcode = 'invalid_table_definition', hint = 'Change it, or rename it: an inbox then adds one of its own.';
        elsif given.name = 'processed_at' and existing_are_processed then
            raise exception 'column processed_at of % tells already which messages are processed', existing_table
                using errcode = 'invalid_parameter_value', hint = 'Leave existing_are_processed out.';
        end if;
    end loop;
    if cardinality(added) > 0 then
        execute format('alter table %s %s', existing_table, array_to_string(added, ', '));
    end if;
    if existing_are_processed then
        execute format('alter table %s alter column processed_at drop default', existing_table);
    end if;
end $$;

create function tide.enable_inbox_tracking(
    existing_table regclass, name text default null, event_id_col text default 'event_id', max_retries int default 3,
    with_dead_letter boolean default true, with_stats boolean default true, processed_retention_hours int default 0,
    dead_retention_hours int default 0, existing_are_processed boolean default false
) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box tide.inbox;
begin
    perform tide.inbox_check_table(existing_table, event_id_col);
    select * into box from tide.inbox i
     where (i.table_schema, i.table_name) = (select n.nspname, c.relname from pg_class c
                                               join pg_namespace n on n.oid = c.relnamespace where c.oid = existing_table);
    if found then
        raise exception '% is the inbox "%" already', existing_table, box.name using
            errcode = 'duplicate_object', hint = format('To change how, first: select tide.disable_inbox_tracking(%L);', box.name);
    end if;
    name := coalesce(name, (select c.relname from pg_class c where c.oid = existing_table));
    perform tide.inbox_refuse_name(name);
    select name, n.nspname, c.relname into box.name, box.table_schema, box.table_name
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = existing_table;
    perform tide.inbox_guard(box, 'access exclusive');
    perform tide.inbox_add_columns(existing_table, existing_are_processed);
    insert into tide.inbox (name, table_schema, table_name, event_id_col, event_id_type, tracked, max_retries, with_dead_letter,
                            with_stats, processed_retention_hours, dead_retention_hours)
    select name, n.nspname, c.relname, event_id_col, format_type(a.atttypid, null), true, max_retries, with_dead_letter,
           with_stats, processed_retention_hours, dead_retention_hours
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      join pg_attribute a on a.attrelid = c.oid and a.attname = event_id_col
     where c.oid = existing_table
    returning * into box;
    perform tide.inbox_build(box);
    return name;
end $$;
comment on function tide.enable_inbox_tracking is
    'Makes a table that is there an inbox, by adding what it lacks; returns the inbox''s name, which is the table''s unless one is given.';

create function tide.disable_inbox_tracking(inbox text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box    tide.inbox := tide.find_inbox(inbox);
    suffix text;
begin
    if not box.tracked then
        raise exception 'inbox "%" was made as an inbox', inbox using
            errcode = 'object_not_in_prerequisite_state', hint = format('To remove it with its messages: select tide.inbox_drop(%L);', inbox);
    end if;
    perform tide.inbox_forget(box);
    foreach suffix in array array['pending', 'done', 'dead', 'order', 'claimed', 'past', 'first'] loop
        execute format('drop index if exists %I.%I', box.table_schema, box.name || '_tide_' || suffix);
    end loop;
    if to_regclass(tide.inbox_relation(box)) is not null then
        execute format('drop trigger if exists tide_inbox on %s', tide.inbox_relation(box));
        execute format('drop trigger if exists tide_inbox_failed on %s', tide.inbox_relation(box));
    end if;
end $$;
comment on function tide.disable_inbox_tracking is 'Makes the inbox an ordinary table again. Its rows and columns stay as they are.';

revoke all on all functions in schema tide from public;
