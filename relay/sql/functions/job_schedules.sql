-- Jobs that are enqueued by the clock. PostgreSQL cannot read cron expressions: the scheduler that owns the queue finds out the
-- next time of each schedule, and fires it. A fire names the time that it saw, so that of all who saw the same time one
-- enqueues, however many believe that they own the queue; the new time and the jobs are one transaction.

create or replace function tide.find_job_schedule(schedule text) returns tide.job_schedule
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    found_schedule tide.job_schedule;
begin
    select * into found_schedule from tide.job_schedule s where s.schedule = find_job_schedule.schedule;
    if not found then
        raise exception 'schedule % does not exist', coalesce('"' || schedule || '"', 'NULL') using
            errcode = 'undefined_object', hint = 'List them: select * from tide.job_schedule_list(); or: relay jobs schedule list.';
    end if;
    return found_schedule;
end $$;

create or replace function tide.job_schedule_set(
    schedule text, queue text, cron text, name text, payload jsonb default '{}', time_zone text default 'UTC',
    missed text default 'one', kind text default 'python', priority int default 0, max_attempts int default 10,
    timeout_seconds int default 30, run_key text default null, dedupe_key text default null, dedupe text default null,
    headers jsonb default null, metadata jsonb default null, options jsonb default null
) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    q   tide.job_queue := tide.find_job_queue(queue);
    bad record;
begin
    perform tide.job_check(queue, name, payload, kind, priority, max_attempts, timeout_seconds, run_key, null, dedupe_key, null, headers,
                           metadata, options);
    perform tide.job_templates_check(options -> 'then', 'options.then') where options ? 'then';
    for bad in
        select * from (values
            ('schedule', length(schedule) between 1 and 200, 'must be a name of 1 to 200 characters'),
            ('cron', length(cron) <= 200 and (cron ~ E'^\\s*@\\w+\\s*$' or cron ~ E'^\\s*(\\S+\\s+){4}\\S+\\s*$'),
             'must be minute, hour, day of month, month and day of week, such as ''30 6 * * MON-FRI'', or such as @daily'),
            ('time_zone', length(time_zone) between 1 and 100, 'must name a time zone, such as Europe/Berlin'),
            ('missed', missed in ('one', 'all', 'skip'), 'must be one, all or skip'),
            ('dedupe', dedupe is null or dedupe in ('waiting', 'unfinished'), 'must be waiting or unfinished'),
            ('dedupe', dedupe is null or dedupe_key is not null, 'needs a dedupe_key')
        ) as v (what, ok, rule) where ok is not true
    loop
        raise exception '% of schedule % %', bad.what, coalesce('"' || schedule || '"', 'NULL'), bad.rule using
            errcode = 'invalid_parameter_value', hint = 'Nothing was changed.';
    end loop;
    insert into tide.job_schedule as s (
        schedule, outbox_id, cron, time_zone, missed, name, payload, kind, priority, max_attempts, timeout_seconds, run_key,
        dedupe_key, dedupe, headers, metadata, options)
    values (
        schedule, q.outbox_id, cron, time_zone, missed, name, coalesce(payload, 'null'), kind, priority, max_attempts, timeout_seconds, run_key,
        dedupe_key, dedupe, headers, metadata, options)
    on conflict on constraint job_schedule_pkey do update
        set outbox_id = excluded.outbox_id, cron = excluded.cron, time_zone = excluded.time_zone, missed = excluded.missed,
            name = excluded.name, payload = excluded.payload, kind = excluded.kind, priority = excluded.priority,
            max_attempts = excluded.max_attempts, timeout_seconds = excluded.timeout_seconds, run_key = excluded.run_key,
            dedupe_key = excluded.dedupe_key, dedupe = excluded.dedupe, headers = excluded.headers, metadata = excluded.metadata,
            options = excluded.options, invalid_reason = null, updated_at = now(),
            -- Another time is counted from now; what was due stays due.
            next_at = case when (s.cron, s.time_zone) = (excluded.cron, excluded.time_zone) then s.next_at end
      -- Workers declare the same at each start: that changes nothing.
      where (s.outbox_id, s.cron, s.time_zone, s.missed, s.name, s.payload, s.kind, s.priority, s.max_attempts, s.timeout_seconds,
             s.run_key, s.dedupe_key, s.dedupe, s.headers, s.metadata, s.options)
            is distinct from
            (excluded.outbox_id, excluded.cron, excluded.time_zone, excluded.missed, excluded.name, excluded.payload, excluded.kind,
             excluded.priority, excluded.max_attempts, excluded.timeout_seconds, excluded.run_key, excluded.dedupe_key, excluded.dedupe,
             excluded.headers, excluded.metadata, excluded.options);
    return found;
end $$;
comment on function tide.job_schedule_set is
    'Creates or changes a schedule. True if that changed anything. A new time is counted from now; a disabled one stays so.';

create or replace function tide.job_schedule_delete(schedule text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
begin
    perform tide.find_job_schedule(schedule);
    delete from tide.job_schedule s where s.schedule = job_schedule_delete.schedule;
end $$;
comment on function tide.job_schedule_delete is 'Jobs that it has enqueued stay.';

create or replace function tide.job_schedule_switch(schedule text, enabled boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
begin
    perform tide.find_job_schedule(schedule);
    update tide.job_schedule s
       set enabled = job_schedule_switch.enabled, next_at = null, invalid_reason = null, updated_at = now()
     where s.schedule = job_schedule_switch.schedule and s.enabled <> job_schedule_switch.enabled;
end $$;

create or replace function tide.job_schedule_enable(schedule text) returns void
language sql security definer set search_path = pg_catalog, pg_temp
begin atomic select tide.job_schedule_switch(schedule, true); end;
comment on function tide.job_schedule_enable is 'Its next time is counted from now: what fell into the time when it was disabled is not due.';

create or replace function tide.job_schedule_disable(schedule text) returns void
language sql security definer set search_path = pg_catalog, pg_temp
begin atomic select tide.job_schedule_switch(schedule, false); end;

create or replace function tide.job_schedule_list() returns table (
    schedule text, queue text, cron text, time_zone text, missed text, enabled boolean, next_at timestamptz, last_at timestamptz,
    last_job uuid, invalid_reason text, name text, kind text, priority int, created_at timestamptz, updated_at timestamptz
)
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select s.schedule, q.name, s.cron, s.time_zone, s.missed, s.enabled, s.next_at, s.last_at, tide.job_uuid(s.outbox_id, s.last_id),
           s.invalid_reason, s.name, s.kind, s.priority, s.created_at, s.updated_at
      from tide.job_schedule s
      join tide.job_queue q on q.outbox_id = s.outbox_id
     order by s.schedule;
end;
comment on function tide.job_schedule_list is 'The schedules, without the arguments of their jobs. next_at is null where no scheduler has looked yet.';

-- For schedulers. seen_at is the next_at that the caller saw; null is returned, and nothing done, if it is another by now.
create or replace function tide.job_schedule_fire(
    schedule text, seen_at timestamptz, new_next_at timestamptz, ticks timestamptz[], reason text default null
) returns bigint[]
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    fired   tide.job_schedule;
    queue   text;
    tick    timestamptz;
    new_ids bigint[] := '{}';
begin
    update tide.job_schedule s
       set next_at = new_next_at, invalid_reason = reason, last_at = coalesce(ticks[cardinality(ticks)], s.last_at)
     where s.schedule = job_schedule_fire.schedule and s.enabled and s.invalid_reason is null and s.next_at is not distinct from seen_at
    returning s.* into fired;
    if not found then
        return null;
    end if;
    select q.name into queue from tide.job_queue q where q.outbox_id = fired.outbox_id;
    foreach tick in array ticks loop
        new_ids := new_ids || tide.job_enqueue(
            queue, fired.name, fired.payload, fired.kind, fired.priority, fired.max_attempts, fired.timeout_seconds, null, fired.run_key,
            null, fired.dedupe_key, null, fired.headers,
            coalesce(fired.metadata, '{}') || jsonb_build_object('schedule', fired.schedule, 'tick', tick), fired.options, 'error', fired.dedupe);
    end loop;
    update tide.job_schedule s set last_id = new_ids[cardinality(new_ids)] where s.schedule = fired.schedule and cardinality(new_ids) > 0;
    return new_ids;
end $$;
