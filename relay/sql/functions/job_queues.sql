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

-- Settings of a queue, as JSON: each is what it must be, or an error says which is not.
create or replace function tide.job_queue_check(queue text, settings jsonb) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
    bad record;
begin
    select k.key, k.rule into bad
      from (values
        ('concurrency_limit', 'number', 1, 2147483647, true, 'must be a whole number from 1, or null for no limit'),
        ('key_limit', 'number', 1, 2147483647, true, 'must be a whole number from 1, or null for no limit'),
        ('rate', 'number', 0.000001, 1000000000, true, 'must be above 0 jobs a second, or null for no limit'),
        ('burst', 'number', 1, 1000000000, true, 'must be a number from 1, or null for as many as rate'),
        ('fair', 'boolean', null, null, false, 'must be true or false'),
        ('keep_succeeded', 'boolean', null, null, false, 'must be true or false'),
        ('retention_hours', 'number', 0, 1000000, false, 'must be a whole number of hours from 0'),
        ('dead_retention_hours', 'number', 0, 1000000, false, 'must be a whole number of hours from 0'),
        ('max_payload_bytes', 'number', 1, 268435456, false, 'must be a whole number of bytes from 1 to 268435456'),
        ('partition_size', 'number', 1000, 1000000000, false, 'must be a whole number of ids from 1000 to 1000000000'))
        as k (key, type, lowest, highest, nullable, rule)
      cross join lateral (select settings -> k.key as given) v
     where v.given is not null
       and not case jsonb_typeof(v.given)
               when 'null' then k.nullable
               when 'number' then k.type = 'number' and v.given::numeric between k.lowest and k.highest
                                  and (k.key in ('rate', 'burst') or v.given::numeric % 1 = 0)
               else jsonb_typeof(v.given) = k.type end
     limit 1;
    if found then
        raise exception '% of job queue "%" is %: it %', bad.key, queue, left((settings -> bad.key)::text, 100), bad.rule using
            errcode = 'invalid_parameter_value', hint = 'Nothing was changed.';
    end if;
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
            errcode = 'duplicate_object',
            hint = 'Only where it is missing: tide.job_queue_create_if_not_exists. To change it: tide.job_queue_set; or: relay jobs queue set.';
    elsif exists (select from tide.pipeline p where p.name = 'jobs.' || job_queue_create.name) then
        raise exception 'job queue "%" needs the pipeline name "jobs.%", which another pipeline has', name, name using
            errcode = 'duplicate_object', hint = 'Choose another name for the queue, or for that pipeline.';
    elsif coalesce(jsonb_typeof(config), 'null') <> 'object' then
        raise exception 'the configuration of job queue "%" must be a JSON object, not %', name, coalesce(jsonb_typeof(config), 'NULL')
            using errcode = 'invalid_parameter_value', hint = 'For example: ''{}''.';
    end if;
    perform tide.job_queue_check(name, jsonb_build_object(
        'concurrency_limit', concurrency_limit, 'key_limit', key_limit, 'rate', rate, 'burst', burst, 'fair', fair,
        'keep_succeeded', keep_succeeded, 'retention_hours', retention_hours, 'dead_retention_hours', dead_retention_hours,
        'max_payload_bytes', max_payload_bytes, 'partition_size', partition_size));
    box := tide.outbox_make('jobs/' || name, 'jobs', retention_hours, max_payload_bytes, partition_size);
    insert into tide.consumer_group (outbox_id, name) values (box.outbox_id, 'jobs') returning group_id into new_group;
    insert into tide.bell (group_id, outbox_id) values (new_group, box.outbox_id);
    insert into tide.job_queue (outbox_id, name, group_id, concurrency_limit, key_limit, rate, burst, fair, keep_succeeded, dead_retention_hours)
    values (box.outbox_id, name, new_group, concurrency_limit, key_limit, rate, burst, fair, keep_succeeded, dead_retention_hours);
    insert into tide.job_lane (outbox_id, priority) values (box.outbox_id, 0);
    perform tide.job_copy(box.outbox_id);
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
       -- Below the cursor, where it was not visible when that passed it: no claim has come back for it yet.
       and not exists (select from (select l.gaps + l.old_gaps as ids from tide.job_lane l
                                     where l.outbox_id = job_queue_is_idle.outbox_id and l.priority = 0 order by l.turn desc limit 1) l
                       cross join lateral unnest(l.ids) g
                       cross join lateral (select from tide.job j
                                            where j.outbox_id = job_queue_is_idle.outbox_id and j.id >= lower(g) and j.id < upper(g)
                                              and j.available_at is null and j.run_key is null limit 1) j)
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
            hint = format('Let them end, or drop them with it: select tide.job_queue_drop(%L, force => true); or: relay jobs queue drop --force.', queue);
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
    perform tide.job_copies_drop(q.outbox_id);
    while not tide.outbox_drop_tables(box) loop
        if clock_timestamp() > give_up then
            raise exception 'job queue "%" was not dropped: a transaction that enqueues, also to other queues, or reads jobs stays open', queue
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
        raise exception '% is not the id of a job', job using errcode = 'invalid_parameter_value',
            hint = 'Each id begins with its time. List the jobs: select * from tide.job_list(); or: relay jobs list';
    end if;
    outbox_id := ('x' || substr(hex, 1, 8))::bit(32)::int;
    id := ('x' || substr(hex, 17, 16))::bit(64)::bigint & 9223372036854775807;
end $$;
