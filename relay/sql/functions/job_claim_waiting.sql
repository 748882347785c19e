-- Claiming jobs that have a row in tide.job_wait: scheduled, to be retried, or with a run key. See job_claim.sql. A row that another
-- transaction has, such as one that cancels its job, is passed over: no claim waits for it.

-- Keys take turns, from where the last claim stopped; of each, as many as its limit leaves, the best by priority and id that
-- is due. Nothing is counted that could be left over: what runs is what is in tide.job_running. A look is at a thousand keys.
-- One that finds nothing goes on with the next, ten at most: then the next claim does.
create or replace function tide.job_claim_keyed(
    queue int, start_key text, key_limit int, lease bigint, room int,
    out ids bigint[], out attempts smallint[], out dues timestamptz[], out last_key text
)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    part    record;
    wrapped boolean := start_key = '';
begin
    ids := '{}'; attempts := '{}'; dues := '{}'; last_key := start_key;
    for look in 1 .. 10 loop
        with recursive k as (
            (select w.run_key, 1 as n from tide.job_wait w
              where w.outbox_id = queue and w.run_key is not null and w.run_key > job_claim_keyed.last_key order by w.run_key limit 1)
            union all
            select (select w.run_key from tide.job_wait w
                     where w.outbox_id = queue and w.run_key is not null and w.run_key > k.run_key order by w.run_key limit 1), k.n + 1
              from k where k.run_key is not null and k.n < 1000
        ), heads as materialized (
            select h.id, k.run_key
              from k cross join lateral (
                select w.id from tide.job_wait w
                 where w.outbox_id = queue and w.run_key is not null and w.run_key = k.run_key and w.available_at <= clock_timestamp()
                   and w.needs = 0
                 order by w.priority desc, w.id
                 limit greatest(0, coalesce(key_limit, room)
                                   - (select count(*)::int from tide.job_running r where r.outbox_id = queue and r.run_key = k.run_key))
                   for update skip locked) h
             where k.run_key is not null
             limit room
        ), gone as (
            delete from tide.job_wait w using heads h where w.outbox_id = queue and w.id = h.id
            returning w.id, w.attempt, w.available_at, w.run_key
        ), running as (
            insert into tide.job_running (outbox_id, run_key, id, lease_id) select queue, g.run_key, g.id, lease from gone g
        )
        select coalesce(array_agg(g.id), '{}') as ids, array_agg(g.attempt) as attempts, array_agg(g.available_at) as dues,
               max(g.run_key) as taken_key, (select max(k.run_key) from k) as seen_key, (select count(k.run_key) from k) as keys
          into part from gone g;
        ids := ids || part.ids;
        attempts := attempts || part.attempts;
        dues := dues || part.dues;
        room := room - cardinality(part.ids);
        if room <= 0 then
            last_key := part.taken_key;
            exit;
        elsif part.keys >= 1000 then
            last_key := part.seen_key;
            exit when wrapped and start_key <> '' and last_key >= start_key;
        else
            -- The last key: on with the first.
            last_key := '';
            exit when wrapped;
            wrapped := true;
        end if;
    end loop;
end $$;

-- Rows that are due and have no run key.
create or replace function tide.job_claim_due(
    queue int, lane_priority smallint, room int, out ids bigint[], out attempts smallint[], out dues timestamptz[]
)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    with due as (
        delete from tide.job_wait w
         using (select d.id from tide.job_wait d
                 where d.outbox_id = queue and d.run_key is null and d.priority = lane_priority and d.available_at <= clock_timestamp()
                   and d.needs = 0
                 order by d.available_at limit room for update skip locked) d
         where w.outbox_id = queue and w.id = d.id
        returning w.id, w.attempt, w.available_at
    )
    select coalesce(array_agg(d.id), '{}'), coalesce(array_agg(d.attempt), '{}'), coalesce(array_agg(d.available_at), '{}')
      into job_claim_due.ids, job_claim_due.attempts, job_claim_due.dues from due d;
end $$;

-- The attempts of a job that have ended, the last first. In PL/pgSQL, whose plans are kept: lists ask for each job.
create or replace function tide.job_attempts_in(queue int, job_id bigint) returns setof tide.job_attempt
language plpgsql stable rows 1 set search_path = pg_catalog, pg_temp as $$
begin
    return query select a.* from tide.job_attempt a where a.outbox_id = queue and a.id = job_id order by a.attempt desc;
end $$;

-- A job, also one whose partition has gone while it waited: once, though it is in both tables until then.
create or replace function tide.job_stored_in(queue int, job_id bigint) returns setof tide.job
language sql stable rows 1
begin atomic
    select j.* from tide.job j where j.outbox_id = queue and j.id = job_id
     union all
    select k.* from tide.job_kept k
     where k.outbox_id = queue and k.id = job_id
       and not exists (select from tide.job j where j.outbox_id = queue and j.id = job_id);
end;
