-- Batches: jobs that enqueue others when all of them have ended. What belongs to a batch is written and counted in job_follow.sql.

create or replace function tide.job_batch_create(on_success jsonb default null, on_complete jsonb default null) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    new_id bigint;
begin
    if on_success is not null then
        perform tide.job_templates_check(on_success, 'on_success');
    end if;
    if on_complete is not null then
        perform tide.job_templates_check(on_complete, 'on_complete');
    end if;
    if exists (select from unnest(array[on_success, on_complete]) t where t is not null and jsonb_path_exists(t, '$[*] ? (!exists(@.queue))')) then
        raise exception 'the jobs that end a batch need a queue' using
            errcode = 'invalid_parameter_value', hint = 'For example: {"queue": "mail", "name": "report"}. Nothing was written.';
    end if;
    insert into tide.job_batch as b (on_success, on_complete) values (on_success, on_complete) returning b.batch_id into new_id;
    return new_id;
end $$;
comment on function tide.job_batch_create is
    'Makes a batch. Jobs belong to it by options => {"batch": N}. When it is closed and all have ended, it enqueues what is given here.';

create or replace function tide.job_batch_close(batch bigint) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
begin
    -- Waits for those who are enqueuing into it.
    perform from tide.job_batch b where b.batch_id = batch for update;
    if not found then
        raise exception 'batch % does not exist', batch using
            errcode = 'no_data_found', hint = 'Make one: select tide.job_batch_create(...). One that ended long ago was removed.';
    end if;
    update tide.job_batch b set closed = true where b.batch_id = batch and not b.closed;
    perform tide.job_batch_end(batch);
end $$;
comment on function tide.job_batch_close is 'No more jobs belong to the batch: it ends when those that do have ended.';

-- If it is closed and nothing of it is left. The row is locked by the caller, who then looks: who ended the others is seen.
create or replace function tide.job_batch_end(batch bigint, of_queue text default null) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    ended tide.job_batch;
begin
    update tide.job_batch b set ended_at = clock_timestamp()
     where b.batch_id = batch and b.closed and b.ended_at is null
       and not exists (select from tide.job_follow f where f.batch_id = batch)
    returning * into ended;
    if not found then
        return;
    end if;
    perform tide.job_enqueue_next(t, of_queue, 'batch ' || batch)
       from unnest(array[case when ended.failed = 0 then ended.on_success end, ended.on_complete]) g
      cross join lateral jsonb_array_elements(case jsonb_typeof(g) when 'array' then g else jsonb_build_array(g) end) t
      where g is not null;
end $$;

create or replace function tide.job_batch_get(batch bigint) returns table (
    closed boolean, unfinished bigint, succeeded bigint, failed bigint, created_at timestamptz, ended_at timestamptz
)
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select b.closed, (select count(*) from tide.job_follow f where f.batch_id = b.batch_id), b.succeeded, b.failed, b.created_at, b.ended_at
      from tide.job_batch b where b.batch_id = batch;
end;
comment on function tide.job_batch_get is 'How far a batch has come; no row: there is no such batch (any more).';
