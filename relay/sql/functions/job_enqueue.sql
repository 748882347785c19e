-- Enqueuing jobs: as publishing a message, a mark, then the id, then the row, then the bell; see publish.sql. A job that is
-- scheduled or has a run key has a row in tide.job_wait as well; a key, one in tide.job_key.

-- Raises what is wrong with a job, if anything is. What is asked first is what a caller would want to know first.
create or replace function tide.job_check(
    queue text, name text, payload jsonb, kind text, priority int, max_attempts int, timeout_seconds int, run_key text,
    idempotency_key text, dedupe_key text, trace_id text, headers jsonb, metadata jsonb, options jsonb
) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    q   tide.job_queue := tide.find_job_queue(queue);
    box tide.outbox;
    bad record;
begin
    select * into box from tide.outbox o where o.outbox_id = q.outbox_id;
    if not box.enabled then
        raise exception 'job queue "%" takes no jobs: its outbox is disabled', queue using
            errcode = 'object_not_in_prerequisite_state', hint = format('Enable it: select tide.outbox_enable(%L);', box.name);
    elsif kind is null or kind not in ('python', 'http', 'dramatiq', 'celery') then
        raise exception 'kind % of a job is not known', coalesce(quote_literal(kind), 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'Use python, http, dramatiq or celery. Nothing was enqueued.';
    end if;
    for bad in
        select * from (values
            ('name', length(name) between 1 and 200, 'must have 1 to 200 characters'),
            ('priority', priority between -1000 and 1000, 'must be between -1000 and 1000'),
            ('max_attempts', max_attempts between 1 and 1000, 'must be between 1 and 1000'),
            ('timeout_seconds', timeout_seconds between 1 and 604800, 'must be between 1 and 604800'),
            ('run_key', run_key is null or length(run_key) between 1 and 300, 'must have 1 to 300 characters'),
            ('idempotency_key', idempotency_key is null or length(idempotency_key) between 1 and 300, 'must have 1 to 300 characters'),
            ('dedupe_key', dedupe_key is null or length(dedupe_key) between 1 and 300, 'must have 1 to 300 characters'),
            ('trace_id', trace_id is null or length(trace_id) <= 512, 'must have at most 512 characters'),
            ('headers', headers is null or jsonb_typeof(headers) = 'object', 'must be a JSON object'),
            ('metadata', metadata is null or jsonb_typeof(metadata) = 'object', 'must be a JSON object'),
            ('options', options is null or jsonb_typeof(options) = 'object', 'must be a JSON object')
        ) as v (what, ok, rule) where ok is not true
    loop
        raise exception '% of the job for queue "%" %', bad.what, queue, bad.rule using
            errcode = 'invalid_parameter_value', hint = 'Nothing was enqueued.';
    end loop;
    if tide.job_size(payload, headers, metadata, options) > box.max_payload_bytes then
        raise exception 'the job for queue "%" has % bytes, its limit is %', queue, tide.job_size(payload, headers, metadata, options),
            box.max_payload_bytes using
            errcode = 'program_limit_exceeded',
            hint = 'Nothing was enqueued. Enqueue a reference to large data, or raise max_payload_bytes: tide.job_queue_set; or: relay jobs queue set.';
    end if;
end $$;

-- Bytes as stored: to make JSON a text, only to measure it, would cost more than the rest.
create or replace function tide.job_size(payload jsonb, headers jsonb, metadata jsonb, options jsonb) returns int
language sql immutable
return coalesce(pg_column_size(payload), 0) + coalesce(pg_column_size(headers), 0) + coalesce(pg_column_size(metadata), 0)
     + coalesce(pg_column_size(options), 0);

-- What few jobs have. In PL/pgSQL, so that it is not inlined where it is seldom needed.
create or replace function tide.job_fits(
    priority int, run_key text, idempotency_key text, dedupe_key text, trace_id text, headers jsonb, metadata jsonb, options jsonb
) returns boolean
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    return priority between -1000 and 1000 and coalesce(length(run_key) between 1 and 300, true)
       and coalesce(length(idempotency_key) between 1 and 300, true) and coalesce(length(dedupe_key) between 1 and 300, true)
       and coalesce(length(trace_id) <= 512, true)
       and coalesce(headers @> '{}', true) and coalesce(metadata @> '{}', true) and coalesce(options @> '{}', true);
end $$;

-- What every job must have. Inlined.
create or replace function tide.job_has_all(kind text, name text, max_attempts int, timeout_seconds int) returns boolean
language sql immutable
return kind in ('python', 'http', 'dramatiq', 'celery') and length(name) between 1 and 200 and max_attempts between 1 and 1000
   and timeout_seconds between 1 and 604800;

-- A plain job that is not the first of its transaction, or whose mark is not simply new.
create or replace function tide.job_ask(outbox_id int) returns regclass
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    return (select tide.outbox_ring(o) from tide.outbox o where o.outbox_id = job_ask.outbox_id);
end $$;

-- As tide.outbox_asleep where the bell says so already: whether someone hears it, in a statement later than the mark.
create or replace function tide.job_ring(name text, ids regclass) returns regclass
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_notify('tide_outbox_notify', name)
      where coalesce(current_setting('tide.two_phase', true), '') <> 'on'
        and (current_setting('transaction_isolation') <> 'read committed'
             or exists (select from tide.scheduler s where s.seen_at > clock_timestamp() - interval '15 seconds'));
    return ids;
end $$;

-- The id of a plain job, in one expression as that of a message: a mark, then a look at the bell, then the next id; see
-- tide.outbox_marked. While a queue is idle its bell is armed: so the way that rings is short, too.
create or replace function tide.job_take_id(outbox_id int, name text, class int, setting text, ids regclass, bell regclass) returns bigint
language sql volatile
return nextval(case
    when coalesce(current_setting(setting, true), '') = ''
         and set_config(setting, concat(pg_current_xact_id(), ' 0', pg_sequence_last_value(ids)), true) <> ''
         and pg_try_advisory_xact_lock_shared(class, (coalesce(pg_sequence_last_value(ids), 0) & 2147483647)::int)
    then case when pg_sequence_last_value(bell) = 1 then ids else tide.job_ring(name, ids) end
    else tide.job_ask(outbox_id) end);

-- A plain job: one row, and nothing beside its arguments that is not a default. One statement, whose plan is kept: each more would cost
-- half of it again. The routing opens the table of the queue with the first row, after its id, and so knows its partitions.
create or replace function tide.job_enqueue_plain(queue text, name text, payload jsonb) returns uuid
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    job uuid;
begin
    insert into tide.job (outbox_id, id, size, name, payload)
    select o.outbox_id, tide.job_take_id(o.outbox_id, o.name, o.mark_class, o.mark_setting, o.ids, o.bell), pg_column_size(payload), name, payload
      from tide.outbox o
     where o.name = 'jobs/' || queue and o.enabled and pg_column_size(payload) <= o.max_payload_bytes and length(name) between 1 and 200
    returning tide.job_uuid(outbox_id, id) into job;
    if not found then
        -- It says why.
        job := tide.job_uuid(queue, tide.job_enqueue(queue, name, payload));
    end if;
    return job;
end $$;
comment on function tide.job_enqueue_plain is
    'Enqueues a job that has nothing but its arguments, in the caller''s transaction, and returns its UUID. The cheapest way: see tide.job_enqueue.';

create or replace function tide.job_enqueue(
    queue text, name text, payload jsonb default '{}', kind text default 'python', priority int default 0,
    max_attempts int default 10, timeout_seconds int default 30, available_at timestamptz default null,
    run_key text default null, idempotency_key text default null, dedupe_key text default null, trace_id text default null,
    headers jsonb default null, metadata jsonb default null, options jsonb default null, on_conflict text default 'error',
    dedupe text default null, debounce interval default null, debounce_max interval default null
) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    in_outbox int;
    ids       regclass;
    size      int;
    marked    boolean;
    new_id    bigint;
    taken     record;
begin
    -- Expressions are set up again in each transaction, and cost more than what they do: a job that is one row is one statement.
    if priority = 0 and num_nonnulls(available_at, run_key, idempotency_key, dedupe, debounce, options) = 0 then
        insert into tide.job (outbox_id, id, size, kind, max_attempts, timeout_seconds, name, dedupe_key, trace_id, headers, metadata, payload)
        select o.outbox_id, tide.job_take_id(o.outbox_id, o.name, o.mark_class, o.mark_setting, o.ids, o.bell),
               tide.job_size(payload, headers, metadata, null), kind::"char", max_attempts, timeout_seconds, name, dedupe_key, trace_id,
               headers, metadata, coalesce(payload, 'null')
          from tide.outbox o
         where o.name = 'jobs/' || queue and o.enabled and tide.job_size(payload, headers, metadata, null) <= o.max_payload_bytes
           and tide.job_has_all(kind, name, max_attempts, timeout_seconds)
           and (num_nonnulls(dedupe_key, trace_id, headers, metadata) = 0
                or tide.job_fits(priority, null, null, dedupe_key, trace_id, headers, metadata, null))
        returning id into new_id;
        if found then
            return new_id;
        end if;
    end if;
    size := tide.job_size(payload, headers, metadata, options);
    select o.outbox_id, o.ids, tide.outbox_mark(o.outbox_id, o.mark_class, o.mark_setting, o.ids) into in_outbox, ids, marked
      from tide.outbox o
     where o.name = 'jobs/' || queue and o.enabled and size <= o.max_payload_bytes
       and tide.job_has_all(kind, name, max_attempts, timeout_seconds)
       and tide.job_fits(priority, run_key, idempotency_key, dedupe_key, trace_id, headers, metadata, options);
    if not found then
        perform tide.job_check(queue, name, payload, kind, priority, max_attempts, timeout_seconds, run_key, idempotency_key,
                               dedupe_key, trace_id, headers, metadata, options);
    end if;
    if options ? 'after' then
        available_at := coalesce(available_at, clock_timestamp());  -- So it has a row in tide.job_wait.
    end if;
    new_id := nextval(ids);
    if coalesce(idempotency_key, dedupe, debounce::text) is not null then
        select * into taken
          from tide.job_keys_take(in_outbox, queue, new_id, name, payload, kind, idempotency_key, dedupe_key, on_conflict, dedupe,
                                  debounce, debounce_max, available_at);
        if taken.holder <> new_id then
            return taken.holder;
        end if;
        available_at := taken.due;
    end if;
    insert into tide.job (outbox_id, id, size, kind, priority, max_attempts, timeout_seconds, available_at, name, run_key,
                          idempotency_key, dedupe_key, trace_id, headers, metadata, options, payload)
    values (in_outbox, new_id, size, kind::"char", priority, max_attempts, timeout_seconds, available_at, name, run_key,
            idempotency_key, dedupe_key, trace_id, headers, metadata, options, coalesce(payload, 'null'));
    if available_at is not null or run_key is not null then
        -- Due from now at the earliest: before it was enqueued it has waited for no worker.
        insert into tide.job_wait (outbox_id, id, attempt, priority, available_at, run_key)
        values (in_outbox, new_id, 1, priority, greatest(available_at, clock_timestamp()), run_key);
    end if;
    if priority <> 0 then
        perform tide.job_check_lanes(in_outbox, queue, priority);
    end if;
    if marked then
        perform pg_notify('tide_outbox_notify', 'jobs/' || queue) where tide.outbox_asleep(in_outbox);
    end if;
    if options ?| '{then,batch,after}' then
        perform tide.job_follow_enqueue(in_outbox, new_id, options);
    end if;
    return new_id;
end $$;
comment on function tide.job_enqueue is
    'Enqueues a job in the caller''s transaction and returns its id; that of the first job where its idempotency key is in use.';

-- Each priority costs a probe at every claim.
create or replace function tide.job_check_lanes(outbox_id int, queue text, priority int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from tide.job_lane l where l.outbox_id = job_check_lanes.outbox_id and l.priority = job_check_lanes.priority)
       and (select count(*) from tide.job_lane l where l.outbox_id = job_check_lanes.outbox_id) >= 32 then
        raise exception 'job queue "%" has jobs of 32 priorities already', queue using
            errcode = 'program_limit_exceeded',
            hint = 'Nothing was enqueued. Use fewer different priorities, or another queue.';
    end if;
end $$;

create or replace function tide.job_enqueue_many(
    queue text, names text[], payloads jsonb[], kind text default 'python', priority int default 0, max_attempts int default 10,
    timeout_seconds int default 30, available_at timestamptz default null, run_keys text[] default null,
    idempotency_keys text[] default null, trace_id text default null, headers jsonb default null, metadata jsonb default null,
    options jsonb default null, on_conflict text default 'error'
) returns bigint[]
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    wanted int := coalesce(cardinality(payloads), 0);
    extra  int := tide.job_size(null, headers, metadata, options);
    box    tide.outbox;
    given  record;
    marked boolean;
    asleep boolean;
    new_ids bigint[];
begin
    if cardinality(names) not in (1, wanted) or cardinality(run_keys) <> wanted or cardinality(idempotency_keys) <> wanted then
        raise exception 'job_enqueue_many got % payloads, % names, % run keys and % idempotency keys', wanted,
            coalesce(cardinality(names), 0), coalesce(cardinality(run_keys), 0), coalesce(cardinality(idempotency_keys), 0) using
            errcode = 'array_subscript_error',
            hint = 'Give one name for all or one for each, and NULL or one key for each. Nothing was enqueued.';
    elsif wanted > 1000000 then
        raise exception 'job_enqueue_many got % jobs, the limit of one call is 1000000', wanted using
            errcode = 'program_limit_exceeded', hint = 'Nothing was enqueued. Enqueue them in several calls.';
    end if;
    select o.* into box from tide.outbox o where o.outbox_id = (tide.find_job_queue(queue)).outbox_id;
    -- The first that is refused, as one alone would be.
    for given in
        select p.payload, coalesce(names[p.number], names[1]) as name, run_keys[p.number] as run_key, idempotency_keys[p.number] as idempotency_key
          from unnest(payloads) with ordinality as p (payload, number)
         where (coalesce(pg_column_size(p.payload), 0) + extra <= box.max_payload_bytes
                    and length(coalesce(names[p.number], names[1])) between 1 and 200
                    and coalesce(length(run_keys[p.number]) between 1 and 300, true)
                    and coalesce(length(idempotency_keys[p.number]) between 1 and 300, true)) is not true
            or box.enabled is not true
            or (kind in ('python', 'http', 'dramatiq', 'celery') and priority between -1000 and 1000 and max_attempts between 1 and 1000
                    and timeout_seconds between 1 and 604800 and coalesce(headers @> '{}', true) and coalesce(metadata @> '{}', true)
                    and coalesce(options @> '{}', true) and coalesce(length(trace_id) <= 512, true)) is not true
         order by p.number limit 1
    loop
        perform tide.job_check(queue, given.name, given.payload, kind, priority, max_attempts, timeout_seconds, given.run_key,
                               given.idempotency_key, null, trace_id, headers, metadata, options);
    end loop;
    if wanted = 0 then
        return '{}';
    elsif idempotency_keys is not null then
        -- In the order of the keys, so that two calls with some of the same cannot wait for each other.
        select array_agg(e.id order by e.number) into new_ids
          from (select p.number, tide.job_enqueue(queue, coalesce(names[p.number], names[1]), p.payload, kind, priority, max_attempts,
                           timeout_seconds, available_at, run_keys[p.number], idempotency_keys[p.number], null, trace_id, headers,
                           metadata, options, on_conflict) as id
                  from (select * from unnest(payloads) with ordinality as u (payload, number)
                         order by idempotency_keys[number], number offset 0) p) e;
        return new_ids;
    end if;
    if options ? 'after' then
        available_at := coalesce(available_at, clock_timestamp());
    end if;
    select tide.outbox_mark(o.outbox_id, o.mark_class, o.mark_setting, o.ids) into marked
      from tide.outbox o where o.outbox_id = box.outbox_id;
    asleep := marked and tide.outbox_asleep(box.outbox_id);
    perform tide.outbox_keep_partitions(box, wanted);
    with written as (
        insert into tide.job (outbox_id, id, size, kind, priority, max_attempts, timeout_seconds, available_at, name, run_key, trace_id,
                              headers, metadata, options, payload)
        select box.outbox_id, nextval(box.ids), coalesce(pg_column_size(p.payload), 0) + extra, kind::"char", priority, max_attempts,
               timeout_seconds, available_at, coalesce(names[p.number], names[1]), run_keys[p.number], trace_id, headers, metadata,
               options, coalesce(p.payload, 'null')
          from unnest(payloads) with ordinality as p (payload, number)
        returning id, run_key
    ), waiting as (
        insert into tide.job_wait (outbox_id, id, attempt, priority, available_at, run_key)
        select box.outbox_id, w.id, 1, priority, greatest(available_at, clock_timestamp()), w.run_key
          from written w where available_at is not null or w.run_key is not null
    )
    select array_agg(w.id order by w.id) into new_ids from written w;
    if priority <> 0 then
        perform tide.job_check_lanes(box.outbox_id, queue, priority);
    end if;
    if asleep then
        perform pg_notify('tide_outbox_notify', box.name);
    end if;
    if options ?| '{then,batch,after}' then
        perform tide.job_follow_enqueue(box.outbox_id, u.id, options) from unnest(new_ids) u (id);
    end if;
    return new_ids;
end $$;
comment on function tide.job_enqueue_many is 'Enqueues jobs in the order of the array and returns their ids in that order.';
