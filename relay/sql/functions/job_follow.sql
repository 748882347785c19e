-- What follows a job: the next one of a chain, the end of its batch, the jobs that waited for it. All of it happens in the
-- transaction that ends the job, and only for jobs that said so: the others have no row here.
--
--   options.then   a job, or an array of them, enqueued when this one has succeeded
--   options.batch  the batch that it belongs to, see tide.job_batch_create
--   options.after  public ids of jobs that must succeed first; with run_if 'ended', that must end
--
-- Who ends jobs locks batches, then dependents, in the order of their ids. A batch is not locked by who enqueues into it:
-- that one only keeps it from being closed.

-- A job as options and batches describe it: the arguments of tide.job_enqueue, as JSON. Why it is not one; null: it is.
create or replace function tide.job_template_problem(template jsonb) returns text
language sql immutable
return case
    when coalesce(jsonb_typeof(template), 'null') <> 'object' then 'it must be a JSON object'
    when coalesce(jsonb_typeof(template -> 'name'), 'null') <> 'string' then 'it has no name'
    when coalesce(jsonb_typeof(template -> 'queue'), 'string') <> 'string' then 'its queue must be a string'
    else (select 'it has an unknown member ' || quote_literal(min(k))
            from jsonb_object_keys(template) k
           where k not in ('queue', 'name', 'payload', 'kind', 'priority', 'max_attempts', 'timeout_seconds', 'delay_seconds', 'run_key',
                           'dedupe_key', 'trace_id', 'headers', 'metadata', 'options')) end;

-- What can never be enqueued as it is must not undo the end of the job before it: its queue was dropped (42704) or takes no jobs (55000),
-- a value is bad (22...) or too large (54000), a batch or a job that it names is not there (P0002). Any other error is the caller's, such
-- as a deadlock or a lock that was not given: then nothing has ended, and who ends jobs does it again.
create or replace function tide.job_enqueue_next(template jsonb, default_queue text, follows text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.job_enqueue(
        coalesce(template ->> 'queue', default_queue), template ->> 'name', coalesce(template -> 'payload', '{}'),
        kind => coalesce(template ->> 'kind', 'python'), priority => coalesce((template ->> 'priority')::int, 0),
        max_attempts => coalesce((template ->> 'max_attempts')::int, 10),
        timeout_seconds => coalesce((template ->> 'timeout_seconds')::int, 30),
        available_at => clock_timestamp() + make_interval(secs => (template ->> 'delay_seconds')::float8),
        run_key => template ->> 'run_key', dedupe_key => template ->> 'dedupe_key', trace_id => template ->> 'trace_id',
        headers => nullif(template -> 'headers', 'null'), metadata => nullif(template -> 'metadata', 'null'),
        options => coalesce(nullif(template -> 'options', 'null'), '{}') || jsonb_build_object('follows', follows));
exception when others then
    if left(sqlstate, 2) <> '22' and sqlstate not in ('42704', '55000', '54000', 'P0002') then
        raise;
    end if;
    raise warning 'what follows % was not enqueued: %', follows, sqlerrm;
    perform tide.job_not_enqueued(template, default_queue, follows, sqlerrm);
end $$;

-- It is dead in its queue, or where that was dropped, in the queue of the job before it: so it is found, and can be replayed. What is bad
-- in it has its default there. With neither queue, only the log of PostgreSQL knows of it.
create or replace function tide.job_not_enqueued(template jsonb, default_queue text, follows text, reason text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    box  tide.outbox;
    dead tide.job;
begin
    select o.* into box from tide.outbox o
     where o.name in ('jobs/' || (template ->> 'queue'), 'jobs/' || default_queue)
     order by o.name = 'jobs/' || (template ->> 'queue') desc nulls last limit 1;
    if not found then
        return;
    end if;
    dead.outbox_id := box.outbox_id;
    dead.id := nextval(box.ids);
    dead.created_at := clock_timestamp();
    dead.kind := case template ->> 'kind' when 'http' then 'h' when 'dramatiq' then 'd' when 'celery' then 'c' else 'p' end;
    dead.name := coalesce(nullif(left(template ->> 'name', 200), ''), '?');
    dead.priority := coalesce(substring(template ->> 'priority' from '^(-?\d{1,3}|-?1000)$')::int, 0);
    dead.max_attempts := coalesce(substring(template ->> 'max_attempts' from '^([1-9]\d{0,2}|1000)$')::int, 10);
    dead.timeout_seconds := least(coalesce(substring(template ->> 'timeout_seconds' from '^([1-9]\d{0,5})$')::int, 30), 604800);
    dead.run_key := nullif(left(template ->> 'run_key', 300), '');
    dead.dedupe_key := nullif(left(template ->> 'dedupe_key', 300), '');
    dead.trace_id := left(template ->> 'trace_id', 512);
    dead.headers := jsonb_path_query_first(template, 'strict $.headers ? (@.type() == "object")', silent => true);
    dead.metadata := jsonb_path_query_first(template, 'strict $.metadata ? (@.type() == "object")', silent => true);
    dead.options := coalesce(jsonb_path_query_first(template, 'strict $.options ? (@.type() == "object")', silent => true), '{}')
                    - '{after,batch}'::text[] || jsonb_build_object('follows', follows);
    dead.payload := coalesce(template -> 'payload', '{}');
    dead.size := tide.job_size(dead.payload, dead.headers, dead.metadata, dead.options);
    insert into tide.job_dead (outbox_id, id, attempts, code, error, job)
    values (dead.outbox_id, dead.id, 0, 'not_enqueued', left(reason, 2000), to_jsonb(dead));
end $$;

-- Also those that follow them in turn. A queue that does not exist is an error now: later no one would be there to see it.
create or replace function tide.job_templates_check(templates jsonb, what text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    template jsonb;
    problem  text;
begin
    for template in
        select t from jsonb_array_elements(case jsonb_typeof(templates) when 'array' then templates else jsonb_build_array(templates) end) t
    loop
        problem := tide.job_template_problem(template);
        if problem is not null then
            raise exception '% is not a job: %', what, problem using
                errcode = 'invalid_parameter_value',
                hint = 'For example: {"queue": "mail", "name": "send_receipt", "payload": {"order_id": 42}}. Nothing was written.';
        end if;
        perform tide.find_job_queue(template ->> 'queue') where template ? 'queue';
        perform tide.job_templates_check(template #> '{options,then}', what || '.options.then') where template -> 'options' ? 'then';
    end loop;
end $$;

-- For a new job with such options; its row in tide.job_wait, if it has one, is written.
create or replace function tide.job_follow_enqueue(queue int, job_id bigint, options jsonb) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    in_batch bigint;
    needed   record;
    waits    int := 0;
    hopeless boolean := false;
    any_end  boolean := coalesce(job_follow_enqueue.options ->> 'run_if', 'succeeded') = 'ended';
begin
    if options ? 'then' then
        perform tide.job_templates_check(options -> 'then', 'options.then');
    end if;
    if options ? 'batch' then
        select b.batch_id into in_batch from tide.job_batch b
         where b.batch_id = (options ->> 'batch')::bigint and not b.closed for key share;
        if not found then
            raise exception 'batch % takes no jobs: it is closed, or does not exist', options ->> 'batch' using
                errcode = 'no_data_found', hint = 'Make one: select tide.job_batch_create(...). Nothing was enqueued.';
        end if;
    end if;
    if options ?| '{then,batch}' then
        insert into tide.job_follow (outbox_id, id, has_then, batch_id) values (queue, job_id, options ? 'then', in_batch);
    end if;
    for needed in
        select j.outbox_id, j.id, j.own,
               tide.job_state_of(j.outbox_id, j.id, j.priority, j.available_at is null and j.run_key is null) as state
          from (select distinct n.outbox_id, n.id, u.job
                  from jsonb_array_elements_text(options -> 'after') u (job) cross join lateral tide.job_of_uuid(u.job::uuid) n) p
          left join lateral (
                select f.*, exists (select from tide.job o where o.outbox_id = f.outbox_id and o.id = f.id
                                       and o.xmin = pg_current_xact_id()::xid) as own
                  from tide.job_find(p.outbox_id, p.id) f) j on true
         order by 1, 2
    loop
        if needed.id is null then
            raise exception 'job % needs a job that does not exist', job_id using
                errcode = 'no_data_found',
                hint = 'options.after takes public ids, see tide.job_uuid; or retention has removed it. Nothing was enqueued.';
        elsif needed.state in ('pending', 'leased') then
            -- One that this transaction has enqueued cannot end before it; others may end meanwhile: see tide.job_follow_late.
            insert into tide.job_dependency (outbox_id, id, needs_outbox_id, needs_id, any_end, may_be_late)
            values (queue, job_id, needed.outbox_id, needed.id, any_end, not needed.own);
            waits := waits + 1;
        elsif needed.state <> 'succeeded' and not any_end then
            hopeless := true;
        end if;
    end loop;
    if hopeless then
        perform tide.job_cancel_dependent(queue, job_id);
    elsif waits > 0 then
        update tide.job_wait w set needs = waits, available_at = 'infinity' where w.outbox_id = queue and w.id = job_id;
    end if;
end $$;

-- One that needs a job that has not succeeded. Others may need it in turn.
create or replace function tide.job_cancel_dependent(queue int, job_id bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    attempt smallint;
begin
    delete from tide.job_wait w where w.outbox_id = queue and w.id = job_id returning w.attempt into attempt;
    if not found then
        return;
    end if;
    insert into tide.job_attempt (outbox_id, id, attempt, worker_id, ms, outcome, code, error)
    values (queue, job_id, attempt, 0, 0, 'c', 'dependency_failed', 'A job that it needs has not succeeded.') on conflict do nothing;
    delete from tide.job_key k where k.outbox_id = queue and k.id = job_id and k.free_on is not null;
    delete from tide.job_kept k where k.outbox_id = queue and k.id = job_id;
    perform tide.job_followed(array[queue], array[job_id], '{c}');
end $$;

-- Jobs have ended, each as its fate says: s, d or c. In the transaction that ends them.
create or replace function tide.job_followed(queues int[], ids bigint[], fates "char"[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    gone     record;
    batches  bigint[] := '{}';
    of_queue text;
begin
    for gone in
        with g as (
            delete from tide.job_follow f using unnest(queues, ids, fates) e (queue, id, fate)
             where f.outbox_id = e.queue and f.id = e.id
            returning f.outbox_id, f.id, f.has_then, f.batch_id, e.fate
        )
        select g.*, q.name as queue from g join tide.job_queue q on q.outbox_id = g.outbox_id order by g.batch_id, g.outbox_id, g.id
    loop
        of_queue := gone.queue;
        if gone.has_then and gone.fate = 's' then
            perform tide.job_enqueue_next(t, gone.queue, tide.job_uuid(gone.outbox_id, gone.id)::text)
               from tide.job_find(gone.outbox_id, gone.id) j
              cross join lateral jsonb_array_elements(
                    case jsonb_typeof(j.options -> 'then') when 'array' then j.options -> 'then' else jsonb_build_array(j.options -> 'then') end) t;
        end if;
        if gone.batch_id is not null then
            update tide.job_batch b
               set succeeded = succeeded + (gone.fate = 's')::int, failed = failed + (gone.fate <> 's')::int
             where b.batch_id = gone.batch_id;
            batches := batches || gone.batch_id;
        end if;
    end loop;
    perform tide.job_batch_end(u.batch, of_queue) from (select distinct b from unnest(batches) b order by b) u (batch);
    -- What waited for them.
    for gone in
        with g as (
            delete from tide.job_dependency d using unnest(queues, ids, fates) e (queue, id, fate)
             where d.needs_outbox_id = e.queue and d.needs_id = e.id
            returning d.outbox_id, d.id, e.fate <> 's' and not d.any_end as failed
        )
        select g.outbox_id, g.id, count(*)::int as n, bool_or(g.failed) as failed from g group by 1, 2 order by 1, 2
    loop
        if gone.failed then
            perform tide.job_cancel_dependent(gone.outbox_id, gone.id);
            continue;
        end if;
        -- Locked first: an update that has waited itself was seen to find no job in its subquery then.
        perform from tide.job_wait w where w.outbox_id = gone.outbox_id and w.id = gone.id for update;
        update tide.job_wait w
           set needs = w.needs - gone.n,
               available_at = case when w.needs > gone.n then w.available_at
                                   else (select greatest(j.available_at, clock_timestamp()) from tide.job_stored(w.outbox_id, w.id) j) end
         where w.outbox_id = gone.outbox_id and w.id = gone.id;
        perform pg_notify('tide_outbox_notify', o.name) from tide.outbox o
          where o.outbox_id = gone.outbox_id and tide.outbox_asleep(o.outbox_id);
    end loop;
end $$;

-- Whether any job has something that follows it: nearly always false, and then finishing costs nothing more.
create or replace function tide.job_follows() returns boolean
language sql stable
return exists (select from tide.job_follow) or exists (select from tide.job_dependency);

-- The jobs that were in a lease which has ended, those that have ended with it.
create or replace function tide.job_followed_lease(lease tide.job_lease) returns void
language sql volatile set search_path = pg_catalog, pg_temp
begin atomic
    select tide.job_followed(array_agg(lease.outbox_id), array_agg(e.id), array_agg(e.fate))
      from (select j.id, case tide.job_state_of(j.outbox_id, j.id, j.priority, false)
                         when 'succeeded' then 's' when 'dead_letter' then 'd' when 'cancelled' then 'c' end::"char" as fate
              from (select array_agg(g.id) as ids
                      from unnest(lease.ids) r cross join lateral generate_series(lower(r), upper(r) - 1) as g (id)) i
             cross join lateral tide.job_stored_of(lease.outbox_id, i.ids) j) e
     where e.fate is not null
    having count(*) > 0;
end;

-- A job may have ended while one that needs it was enqueued, unseen by each other. Called with the rescue.
create or replace function tide.job_follow_late() returns void
language sql volatile set search_path = pg_catalog, pg_temp
begin atomic
    select tide.job_followed(array_agg(e.outbox_id), array_agg(e.id), array_agg(e.fate))
      from (select j.outbox_id, j.id,
                   case tide.job_state_of(j.outbox_id, j.id, j.priority, j.available_at is null and j.run_key is null)
                   when 'succeeded' then 's' when 'dead_letter' then 'd' when 'cancelled' then 'c' end::"char" as fate
              from (select distinct d.needs_outbox_id, d.needs_id from tide.job_dependency d where d.may_be_late limit 1000) d
             cross join lateral tide.job_find(d.needs_outbox_id, d.needs_id) j) e
     where e.fate is not null
    having count(*) > 0;
end;

-- Before a queue is dropped: its jobs count as cancelled.
create or replace function tide.job_follow_drop(queue int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    delete from tide.job_dependency d where d.outbox_id = queue;
    perform tide.job_followed(array_agg(queue), array_agg(u.id), array_agg('c'::"char"))
       from (select f.id from tide.job_follow f where f.outbox_id = queue
              union select d.needs_id from tide.job_dependency d where d.needs_outbox_id = queue) u
     having count(*) > 0;
end $$;

-- Who has the turn of a queue must not wait for who ends jobs, who may wait for the turn: then lock_not_available says so.
create or replace function tide.job_follow_lock(queue int, job_id bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    perform from tide.job_wait w where w.outbox_id = queue and w.id = job_id for update nowait;
    perform from tide.job_batch b
      where b.batch_id in (select f.batch_id from tide.job_follow f where f.outbox_id = queue and f.id = job_id) for no key update nowait;
    perform from tide.job_wait w
      where (w.outbox_id, w.id) in (select d.outbox_id, d.id from tide.job_dependency d
                                     where d.needs_outbox_id = queue and d.needs_id = job_id) for update nowait;
end $$;
