-- What operators do to jobs and queues: cancelling, replaying, removing dead jobs, changing a queue.

-- A job that someone named by its public id.
create or replace function tide.job_named(job uuid) returns tide.job
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    found_job tide.job;
begin
    select j.* into found_job from tide.job_of_uuid(job) p cross join lateral tide.job_find(p.outbox_id, p.id) j;
    if not found then
        raise exception 'job % does not exist', job using
            errcode = 'undefined_object',
            hint = 'It may have been removed by retention. List them: select * from tide.job_list(...); or: relay jobs list.';
    end if;
    return found_job;
end $$;

-- Cancels a job, if it has not ended. True: it has ended with that; false: its worker was asked; null: it had ended. The turn
-- of the queue is the caller's, so no claim comes between. A finish or a rescue may: then it is looked at again. A worker
-- finishes and claims in one transaction, so who has the turn must not wait for a lease: lock_not_available says so.
create or replace function tide.job_cancel_one(queue int, job_id bigint, priority smallint, in_lane boolean, reason text) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    state   text;
    attempt smallint;
    worker  bigint;
begin
    for look in 1 .. 100 loop
        state := tide.job_state_of(queue, job_id, job_cancel_one.priority, in_lane);
        if state = 'leased' then
            perform from tide.job_lease l where l.outbox_id = queue and l.ids @> job_id for update nowait;
            update tide.job_lease l set cancelled = l.cancelled + int8multirange(int8range(job_id, job_id, '[]'))
             where l.outbox_id = queue and l.ids @> job_id
            returning l.worker_id into worker;
            if found then
                perform pg_notify('tide_job_cancel', worker::text);
                return false;
            end if;
        elsif state = 'pending' then
            perform tide.job_follow_lock(queue, job_id) where tide.job_follows();
            delete from tide.job_wait w where w.outbox_id = queue and w.id = job_id returning w.attempt into attempt;
            if not found and in_lane then
                -- A lane has no row to remove: the claim passes it over.
                insert into tide.job_skip (outbox_id, id) values (queue, job_id) on conflict do nothing;
                attempt := 1;
            end if;
            if attempt is not null then
                insert into tide.job_attempt (outbox_id, id, attempt, worker_id, ms, outcome, code, error)
                values (queue, job_id, attempt, 0, 0, 'c', 'cancelled', reason) on conflict do nothing;
                delete from tide.job_key k where k.outbox_id = queue and k.id = job_id and k.free_on is not null;
                delete from tide.job_kept k where k.outbox_id = queue and k.id = job_id;
                perform tide.job_followed(array[queue], array[job_id], '{c}') where tide.job_follows();
                return true;
            end if;
        else
            return null;
        end if;
    end loop;
    raise exception 'job % changed too often to be cancelled', job_id using
        errcode = 'lock_not_available', hint = 'Nothing was changed. Call it again.';
end $$;

create or replace function tide.job_take_turn(queue int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    perform from tide.job_lane l where l.outbox_id = queue and l.priority = 0 order by l.turn desc limit 1 for no key update;
end $$;

create or replace function tide.job_cancel(job uuid, reason text default null) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    j       tide.job := tide.job_named(job);
    give_up timestamptz := clock_timestamp() + interval '5 seconds';
    done    boolean;
begin
    loop
        begin
            perform tide.job_take_turn(j.outbox_id);
            done := tide.job_cancel_one(j.outbox_id, j.id, j.priority, j.available_at is null and j.run_key is null, left(reason, 2000));
            exit;
        exception when lock_not_available then
            if clock_timestamp() > give_up then
                raise;
            end if;
            perform pg_sleep(0.02 * random());
        end;
    end loop;
    if done is null then
        raise exception 'job % has ended: it is %', job,
            tide.job_state_of(j.outbox_id, j.id, j.priority, j.available_at is null and j.run_key is null)
            using errcode = 'object_not_in_prerequisite_state', hint = 'Only jobs that are pending or leased can be cancelled.';
    end if;
    return case when done then 'cancelled' else 'leased' end;
end $$;
comment on function tide.job_cancel is
    'Cancels a job: cancelled, or leased while its worker still runs it and was asked to stop. Commit soon: no claim passes until then.';

create or replace function tide.job_cancel_many(
    queue text, state text default 'pending', name text default null, dedupe_key text default null, run_key text default null,
    max_jobs int default 1000, reason text default null
) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    q         tide.job_queue := tide.find_job_queue(queue);
    give_up   timestamptz := clock_timestamp() + interval '5 seconds';
    cancelled int;
begin
    if state is null or state not in ('pending', 'leased') then
        raise exception 'jobs that are % cannot be cancelled', coalesce(state, 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'Use pending or leased.';
    end if;
    loop
        begin
            perform tide.job_take_turn(q.outbox_id);
            select count(*) into cancelled
              from (select tide.job_cancel_one(j.outbox_id, j.id, j.priority, j.available_at is null and j.run_key is null, left(reason, 2000)) as done
                      from (select f.*
                              from (select array_agg(l.id) as ids
                                      from tide.job_list(queue, state, name, dedupe_key, run_key, null, max_jobs) l
                                     where l.state is not null) i
                             cross join lateral tide.job_find_of(q.outbox_id, i.ids) f
                             order by f.id offset 0) j) c
             where c.done is not null;
            exit;
        exception when lock_not_available then
            if clock_timestamp() > give_up then
                raise;
            end if;
            perform pg_sleep(0.02 * random());
        end;
    end loop;
    return cancelled;
end $$;
comment on function tide.job_cancel_many is 'Cancels jobs of a queue, at most so many at a time, and returns their number.';

-- A new job like another. The idempotency key stays in its row, for those who receive it, and is not taken again. So does options.after,
-- for what those jobs returned: it waits for them no more.
create or replace function tide.job_again(j tide.job, available_at timestamptz) returns bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    box    tide.outbox;
    marked boolean;
    new_id bigint;
begin
    select o.* into box from tide.outbox o where o.outbox_id = j.outbox_id;
    if not box.enabled then
        raise exception 'job queue "%" takes no jobs: its outbox is disabled', substr(box.name, 6) using
            errcode = 'object_not_in_prerequisite_state', hint = format('Enable it: select tide.outbox_enable(%L);', box.name);
    end if;
    marked := tide.outbox_mark(box.outbox_id, box.mark_class, box.mark_setting, box.ids);
    new_id := nextval(box.ids);
    insert into tide.job (outbox_id, id, size, kind, priority, max_attempts, timeout_seconds, available_at, name, run_key, idempotency_key,
                          dedupe_key, trace_id, headers, metadata, options, payload)
    values (j.outbox_id, new_id, j.size, j.kind, j.priority, j.max_attempts, j.timeout_seconds, available_at, j.name, j.run_key,
            j.idempotency_key, j.dedupe_key, j.trace_id, j.headers, j.metadata,
            coalesce(j.options - 'batch', '{}') || jsonb_build_object('replay_of', j.id), j.payload);
    if available_at is not null or j.run_key is not null then
        insert into tide.job_wait (outbox_id, id, attempt, priority, available_at, run_key)
        values (j.outbox_id, new_id, 1, j.priority, greatest(available_at, clock_timestamp()), j.run_key);
    end if;
    if j.options ? 'then' then
        perform tide.job_follow_enqueue(j.outbox_id, new_id, jsonb_build_object('then', j.options -> 'then'));
    end if;
    update tide.job_dead d set replayed_as = new_id where d.outbox_id = j.outbox_id and d.id = j.id;
    if marked then
        perform pg_notify('tide_outbox_notify', box.name) where tide.outbox_asleep(box.outbox_id);
    end if;
    return new_id;
end $$;

create or replace function tide.job_replay(job uuid, force boolean default false, available_at timestamptz default null) returns uuid
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    j     tide.job := tide.job_named(job);
    state text := tide.job_state_of(j.outbox_id, j.id, j.priority, j.available_at is null and j.run_key is null);
begin
    if state in ('pending', 'leased') then
        raise exception 'job % has not ended: it is %', job, state using
            errcode = 'object_not_in_prerequisite_state',
            hint = 'Wait until it has, or cancel it: select tide.job_cancel(...); or: relay jobs cancel.';
    elsif state = 'succeeded' and not force then
        raise exception 'job % has succeeded', job using
            errcode = 'object_not_in_prerequisite_state',
            hint = 'To run it once more all the same, use force => true; or: relay jobs replay --force.';
    end if;
    return tide.job_uuid(j.outbox_id, tide.job_again(j, job_replay.available_at));
end $$;
comment on function tide.job_replay is
    'Enqueues a job like one that has ended, as often as you like, and returns its id. It has the idempotency key of the first.';

create or replace function tide.job_replay_many(
    queue text, state text default 'dead_letter', name text default null, dedupe_key text default null, run_key text default null,
    max_jobs int default 1000
) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    q        tide.job_queue := tide.find_job_queue(queue);
    ids      bigint[] := '{}';
    page     record;
    reached  bigint;
    replayed int;
begin
    if state is null or state not in ('dead_letter', 'cancelled') then
        raise exception 'jobs that are % cannot be replayed by the queue', coalesce(state, 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'Use dead_letter or cancelled. One that has succeeded: tide.job_replay.';
    end if;
    loop
        select array_agg(l.id) filter (where l.state is not null and l.replayed_as is null) as ids, min(l.id) as reached into page
          from tide.job_list(queue, state, name, dedupe_key, run_key, reached, 1000) l;
        exit when page.reached is null;
        ids := ids || page.ids;
        reached := page.reached;
        exit when cardinality(ids) >= max_jobs;
    end loop;
    -- The newest of them, in the order in which they were enqueued.
    select count(tide.job_again(j, null)) into replayed
      from (select f.* from tide.job_find_of(q.outbox_id, ids[1:max_jobs]) f order by f.id offset 0) j;
    return replayed;
end $$;
comment on function tide.job_replay_many is
    'Replays jobs of a queue, at most so many at a time, and returns their number. Dead ones that were replayed are left out.';

create or replace function tide.job_purge(queue text, older_than interval default '0 seconds', max_jobs int default 10000) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    q      tide.job_queue := tide.find_job_queue(queue);
    purged int;
begin
    with gone as (
        delete from tide.job_dead d
         where d.outbox_id = q.outbox_id
           and d.id in (select o.id from tide.job_dead o
                         where o.outbox_id = q.outbox_id and o.died_at <= clock_timestamp() - older_than order by o.id limit max_jobs)
        returning d.id
    ), keys as (
        delete from tide.job_key k using gone g where k.outbox_id = q.outbox_id and k.id = g.id
    )
    select count(*) into purged from gone;
    return purged;
end $$;
comment on function tide.job_purge is
    'Removes dead jobs that died so long ago, with their keys. What is in the log goes with its partition, see retention_hours.';

create or replace function tide.job_queue_set(queue text, settings jsonb) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    q       tide.job_queue := tide.find_job_queue(queue);
    known   text[] := array['concurrency_limit', 'key_limit', 'rate', 'burst', 'fair', 'keep_succeeded', 'retention_hours',
                            'dead_retention_hours', 'max_payload_bytes', 'config'];
    unknown text;
begin
    if coalesce(jsonb_typeof(settings), 'null') <> 'object' then
        raise exception 'the settings of job queue "%" must be a JSON object, not %', queue, coalesce(jsonb_typeof(settings), 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'For example: ''{"concurrency_limit": 5}''. Nothing was changed.';
    elsif coalesce(jsonb_typeof(settings -> 'config'), 'object') <> 'object' then
        raise exception 'config of job queue "%" must be a JSON object, not %', queue, jsonb_typeof(settings -> 'config') using
            errcode = 'invalid_parameter_value', hint = 'For example: ''{}''. Nothing was changed.';
    end if;
    select string_agg(k, ', ' order by k) into unknown from jsonb_object_keys(settings) k where k <> all (known);
    if unknown is not null then
        raise exception 'job queue "%" has no setting %', queue, unknown using
            errcode = 'invalid_parameter_value', hint = format('It has %s. Nothing was changed.', array_to_string(known, ', '));
    end if;
    perform tide.job_queue_check(queue, settings);
    -- A configuration names hosts and secrets, so it is for those who configure, and not for all who operate.
    if settings ? 'config' and not has_function_privilege(tide.caller()::name, 'tide.job_queue_drop(text, boolean)', 'execute') then
        raise exception 'role % may not change the configuration of job queue "%"', quote_ident(tide.caller()), queue using
            errcode = 'insufficient_privilege', hint = 'Nothing was changed. Use a role of tide.grant_admin.';
    end if;
    -- What is not given stays; what is null has no limit.
    update tide.job_queue t
       set concurrency_limit = n.concurrency_limit, key_limit = n.key_limit, rate = n.rate, burst = n.burst, fair = n.fair,
           keep_succeeded = n.keep_succeeded, dead_retention_hours = n.dead_retention_hours
      from jsonb_populate_record(q, settings) n
     where t.outbox_id = q.outbox_id;
    update tide.outbox o
       set retention_hours = n.retention_hours, max_payload_bytes = n.max_payload_bytes
      from tide.outbox b cross join lateral jsonb_populate_record(b, settings) n
     where o.outbox_id = q.outbox_id and b.outbox_id = q.outbox_id and settings ?| '{retention_hours,max_payload_bytes}';
    if settings ? 'config' then
        update tide.pipeline p
           set config = settings -> 'config', revision = nextval('tide.revisions'), invalid_reason = null, updated_at = now()
         where p.group_id = q.group_id;
        update tide.drain d set retry_at = null where d.pipeline = 'jobs.' || queue;
    end if;
    perform pg_notify('tide_relay_config', 'jobs.' || queue);
end $$;
comment on function tide.job_queue_set is
    'Changes settings of a queue, those of job_queue_create: what is not given stays as it is; null: no limit.';

create or replace function tide.job_queue_list() returns table (
    queue text, paused boolean, concurrency_limit int, key_limit int, rate float8, burst float8, fair boolean, keep_succeeded boolean,
    retention_hours int, dead_retention_hours int, max_payload_bytes int, created_at timestamptz, invalid_reason text
)
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select q.name, not p.enabled, q.concurrency_limit, q.key_limit, q.rate, q.burst, q.fair, q.keep_succeeded, o.retention_hours,
           q.dead_retention_hours, o.max_payload_bytes, o.created_at, p.invalid_reason
      from tide.job_queue q
      join tide.outbox o on o.outbox_id = q.outbox_id
      join tide.pipeline p on p.group_id = q.group_id
     order by q.name;
end;
comment on function tide.job_queue_list is 'The queues of jobs with their settings.';
