-- Queues of jobs: creating, changing, pausing and dropping them. A queue is an outbox of kind jobs with one consumer group and
-- one pipeline, jobs.<queue>: a scheduler owns that, and the queue is paused while it is disabled.

create or replace function tide.find_job_queue(queue text) returns tide.job_queue
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    found_queue tide.job_queue;
begin
    select * into found_queue from tide.job_queue q where q.name = find_job_queue.queue;
    if not found then
        raise exception 'job queue % does not exist', coalesce('"' || queue || '"', 'NULL') using
            errcode = 'undefined_object',
            hint = format('Create it: select tide.job_queue_create(%L); or: relay jobs queue create.', queue);
    end if;
    return found_queue;
end $$;

create or replace function tide.job_queue_create(
    name text, concurrency_limit int default null, key_limit int default null, rate float8 default null,
    burst float8 default null, fair boolean default false, keep_succeeded boolean default true, retention_hours int default 168,
    dead_retention_hours int default 720, max_payload_bytes int default 1048576, partition_size bigint default 1000000,
    config jsonb default '{}'
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box       tide.outbox;
    new_group int;
begin
    if name is null or name !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,94}$' then
        raise exception 'queue name % is not valid', coalesce(quote_literal(name), 'NULL') using
            errcode = 'invalid_name', hint = 'Use 1 to 95 letters, digits, "_", "-" and ".", not starting with "-" or ".".';
    elsif exists (select from tide.job_queue q where q.name = job_queue_create.name) then
        raise exception 'job queue "%" exists already', name using
            errcode = 'duplicate_object', hint = 'Use tide.job_queue_create_if_not_exists to create it only where it is missing.';
    elsif exists (select from tide.pipeline p where p.name = 'jobs.' || job_queue_create.name) then
        raise exception 'job queue "%" needs the pipeline name "jobs.%", which another pipeline has', name, name using
            errcode = 'duplicate_object', hint = 'Choose another name for the queue, or for that pipeline.';
    elsif coalesce(jsonb_typeof(config), 'null') <> 'object' then
        raise exception 'the configuration of job queue "%" must be a JSON object, not %', name, coalesce(jsonb_typeof(config), 'NULL')
            using errcode = 'invalid_parameter_value', hint = 'For example: ''{}''.';
    end if;
    box := tide.outbox_make('jobs/' || name, 'jobs', retention_hours, max_payload_bytes, partition_size);
    insert into tide.consumer_group (outbox_id, name) values (box.outbox_id, 'jobs') returning group_id into new_group;
    insert into tide.bell (group_id, outbox_id) values (new_group, box.outbox_id);
    insert into tide.job_queue (outbox_id, name, group_id, concurrency_limit, key_limit, rate, burst, fair, keep_succeeded, dead_retention_hours)
    values (box.outbox_id, name, new_group, concurrency_limit, key_limit, rate, burst, fair, keep_succeeded, dead_retention_hours);
    insert into tide.job_lane (outbox_id, priority) values (box.outbox_id, 0);
    insert into tide.pipeline (name, direction, group_id, config) values ('jobs.' || name, 'jobs', new_group, config);
    insert into tide.drain (pipeline) values ('jobs.' || name);
    perform pg_notify('tide_relay_config', 'jobs.' || name);
exception when lock_not_available then
    raise exception 'job queue "%" was not created: another transaction is creating or changing queues, for more than 5 s', name using
        errcode = 'lock_not_available',
        detail = coalesce('In the way: ' || tide.changing(array['tide.outbox', 'tide.job', 'tide.job_attempt']::regclass[]) || '.',
                          'It has ended by now.'),
        hint = 'Nothing was changed. Call it again when that has ended; or end it: select pg_terminate_backend(pid);';
end $$;
comment on function tide.job_queue_create is
    'Creates a queue of jobs. Limits are over the whole fleet; null: none. rate is jobs a second, in bursts of at most burst.';

create or replace function tide.job_queue_create_if_not_exists(name text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from tide.job_queue q where q.name = job_queue_create_if_not_exists.name) then
        return false;
    end if;
    perform tide.job_queue_create(name);
    return true;
exception when duplicate_object or unique_violation then
    -- Another transaction created it meanwhile: its row was waited for.
    return false;
end $$;
comment on function tide.job_queue_create_if_not_exists is 'True if it was created, false if it was there.';

create or replace function tide.job_queue_pause(queue text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.relay_set_enabled('jobs.' || (tide.find_job_queue(queue)).name, false);
end $$;
comment on function tide.job_queue_pause is 'No job of the queue is begun any more. Those that run go on; jobs can be enqueued.';

create or replace function tide.job_queue_resume(queue text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.relay_set_enabled('jobs.' || (tide.find_job_queue(queue)).name, true);
end $$;

-- What is not there is said by ids and rows, not by counting: whether anything waits or runs.
create or replace function tide.job_queue_is_idle(outbox_id int) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select not exists (select from tide.job_lease l where l.outbox_id = job_queue_is_idle.outbox_id)
       and not exists (select from tide.job_wait w where w.outbox_id = job_queue_is_idle.outbox_id)
       and not exists (select from tide.job j
                        where j.outbox_id = job_queue_is_idle.outbox_id and j.available_at is null and j.run_key is null
                          and j.id > coalesce((select l.cursor_id from tide.job_lane l
                                                where l.outbox_id = j.outbox_id and l.priority = j.priority
                                                order by l.turn desc limit 1), 0))
$$;

create or replace function tide.job_queue_drop(queue text, force boolean default false) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    q       tide.job_queue := tide.find_job_queue(queue);
    box     tide.outbox;
    give_up timestamptz := clock_timestamp() + interval '2 seconds';
begin
    select * into box from tide.outbox o where o.outbox_id = q.outbox_id;
    if not force and not tide.job_queue_is_idle(q.outbox_id) then
        raise exception 'job queue "%" has jobs that wait or run', queue using
            errcode = 'object_not_in_prerequisite_state',
            hint = format('Let them end, or drop them with it: select tide.job_queue_drop(%L, force => true);', queue);
    end if;
    perform tide.job_follow_drop(q.outbox_id);
    delete from tide.pipeline p where p.group_id = q.group_id;
    delete from tide.job_queue j where j.outbox_id = q.outbox_id;
    delete from tide.consumer_group g where g.group_id = q.group_id;
    delete from tide.job_lane l where l.outbox_id = q.outbox_id;
    delete from tide.job_lease l where l.outbox_id = q.outbox_id;
    delete from tide.job_wait w where w.outbox_id = q.outbox_id;
    delete from tide.job_running r where r.outbox_id = q.outbox_id;
    delete from tide.job_dead d where d.outbox_id = q.outbox_id;
    delete from tide.job_key k where k.outbox_id = q.outbox_id;
    delete from tide.job_skip s where s.outbox_id = q.outbox_id;
    delete from tide.job_kept k where k.outbox_id = q.outbox_id;
    delete from tide.outbox o where o.outbox_id = q.outbox_id;
    perform pg_notify('tide_relay_config', 'jobs.' || queue);
    while not tide.outbox_drop_tables(box) loop
        if clock_timestamp() > give_up then
            raise exception 'job queue "%" was not dropped: a transaction that enqueues, to whatever queue, or reads jobs stays open', queue
                using errcode = 'lock_not_available', hint = 'Nothing was changed. Try again when it has ended.';
        end if;
        perform pg_sleep(0.05 + random() * 0.1);
    end loop;
end $$;
comment on function tide.job_queue_drop is 'Removes the queue with its jobs, their attempts and its dead jobs.';

-- The public id of a job: a UUID of version 8 that is computed, with the queue in the first four bytes and the id in the last
-- eight. So it needs no column and no index, and sorts by age within a queue.
create or replace function tide.job_uuid(outbox_id int, id bigint) returns uuid
language sql immutable parallel safe
return (lpad(to_hex(outbox_id), 8, '0') || '00008000' || to_hex(id | (-9223372036854775808)))::uuid;

-- So that an enqueue can return it, in one statement: tide.job_uuid('mail', tide.job_enqueue('mail', ...)).
create or replace function tide.job_uuid(queue text, id bigint) returns uuid
language sql volatile security definer set search_path = pg_catalog, pg_temp
begin atomic
    select tide.job_uuid(q.outbox_id, job_uuid.id) from tide.job_queue q where q.name = job_uuid.queue;
end;

create or replace function tide.job_uuid(queue text, ids bigint[]) returns setof uuid
language sql volatile security definer set search_path = pg_catalog, pg_temp
begin atomic
    select tide.job_uuid(q.outbox_id, u.id)
      from tide.job_queue q cross join unnest(ids) with ordinality as u (id, number)
     where q.name = job_uuid.queue order by u.number;
end;

create or replace function tide.job_of_uuid(job uuid, out outbox_id int, out id bigint)
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    hex text := replace(job::text, '-', '');
begin
    if substr(hex, 9, 8) <> '00008000' or substr(hex, 17, 1) not in ('8', '9', 'a', 'b') or substr(hex, 1, 1) > '7' then
        raise exception '% is not the id of a job', job using errcode = 'invalid_parameter_value';
    end if;
    outbox_id := ('x' || substr(hex, 1, 8))::bit(32)::int;
    id := ('x' || substr(hex, 17, 16))::bit(64)::bigint & 9223372036854775807;
end $$;
