-- The signs of life of worker processes and of relay api. One row a process, a new one at each start: never reused.

-- A process that was killed leaves its row. It is old within a minute, and goes with the beat of another an hour later.
create or replace function tide.process_beat(
    process_id uuid, kind text, host text, pid int, version text, queues text[] default '{}', lacking text[] default '{}'
) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into tide.process as p (process_id, kind, host, pid, version, queues, lacking)
    values (process_beat.process_id, process_beat.kind, process_beat.host, process_beat.pid, process_beat.version,
            process_beat.queues, process_beat.lacking)
    on conflict on constraint process_pkey do update
        set seen_at = clock_timestamp(), queues = excluded.queues, lacking = excluded.lacking;
    delete from tide.process p
     where p.ctid = any (array(select o.ctid from tide.process o
                                where o.seen_at < clock_timestamp() - interval '1 hour' for update skip locked));
end $$;
comment on function tide.process_beat is 'A sign of life of a process of workers or of relay api.';

create or replace function tide.process_stop(process_id uuid) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
begin atomic
    delete from tide.process p where p.process_id = process_stop.process_id;
end;
comment on function tide.process_stop is 'Says that a process has ended.';
