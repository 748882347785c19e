-- Working on the messages of an inbox: claims, marks, replays.
--
-- The texts below are parts of the statements of tide.inbox_claim, in which $1 is the worker, $2 the end of its lease,
-- $3 the present, and $4 ids. Sizes are written out, so that the planner knows them.
create or replace function tide.inbox_claimable(box tide.inbox) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select format('%s and (i.available_at is null or i.available_at <= $3)', tide.inbox_pending(box, 'i.'));
end;

-- The ids of the first messages that can be claimed. Without a priority: those whose lease or pause is over, which came
-- before the others, and then the others. `locking` is part of each branch, as PostgreSQL has none around a union; the
-- limit around it ends the work in the first branch that has enough.
create or replace function tide.inbox_waiting(box tide.inbox, size int, locking text default '') returns text
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
-- came late goes ahead of one that a worker holds, and waits for that one nevertheless.
create or replace function tide.inbox_is_next(box tide.inbox) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select format('(i.%2$I is null or i.%3$I = (select n.%3$I from %1$s n where n.%2$I = i.%2$I and n.processed_at is null '
                  'order by n.%2$I, n.%4$I, n.inbox_seq limit 1) '
                  'and not exists (select from %1$s c where c.%2$I = i.%2$I and c.processed_at is null '
                  'and c.claimed_by is not null and c.available_at > $3))',
                  tide.inbox_relation(box), (box).aggregate_id_col, (box).event_id_col, (box).seq_col);
end;

-- The heads of all aggregates, by a walk along the index: one step for each aggregate, however much each has.
create or replace function tide.inbox_heads(box tide.inbox) returns text
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
create or replace function tide.inbox_lock(box tide.inbox, candidates text, size int) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select format('select array_agg(l.id) from (select i.%1$I::text as id from (%2$s) w join %3$s i on i.%1$I = w.id '
                  'where %4$s and %5$s and i.%1$I::text <> all ($4) limit %6$s for update of i skip locked) l',
                  (box).event_id_col, candidates, tide.inbox_relation(box), tide.inbox_claimable(box),
                  tide.inbox_is_next(box), size);
end;

-- Among the messages that wait longest; and where all these are of a few aggregates, among the heads of the others.
create or replace function tide.inbox_lock_next(box tide.inbox, size int, at timestamptz) returns text[]
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

-- The ids of those whose aggregate no one else is about to claim. A claim that is not committed yet is not to be seen;
-- its lock is. What the holders of these locks committed before is seen by the statements after this.
create or replace function tide.inbox_lock_aggregates(box tide.inbox, ids text[]) returns text[]
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
create or replace function tide.inbox_claim(
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
        -- Each aggregate is a lock until the transaction ends, and the server has room for some thousands, for everyone.
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
    'Leases messages to a worker. No one else gets them until the lease is over, or until this transaction is, if it is rolled back.';

-- Marking -------------------------------------------------------------------------------------------------------------

-- Along the index of the ids, on which a list of ids is sorted: so all who change rows by such lists lock them in one order.
create or replace function tide.inbox_mark_processed(inbox text, event_ids text[], worker text default null) returns int
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

create or replace function tide.inbox_release(inbox text, event_ids text[], worker text) returns int
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

create or replace function tide.inbox_mark_failed(
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

create or replace function tide.replay_inbox_messages(inbox text, event_ids text[]) returns int
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    box      tide.inbox := tide.find_inbox(inbox);
    replayed int;
    unknown  text;
begin
    execute format('update %1$s i set processed_at = null, retry_count = 0, error = null, failed_at = null, '
                   'claimed_by = null, available_at = null where i.%2$I = any ($1::%3$s[]) '
                   'and (i.processed_at is not null or i.retry_count > 0) '
                   -- A worker holds it.
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
    'Makes processed, failed and dead messages pending again, as if they had just come; returns how many. Not those that a worker holds.';
