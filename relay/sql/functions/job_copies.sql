-- What a queue does with its own tables: the functions whose names end in _in, a copy for each queue, which names these tables.
--
-- A plan that is kept over tide.job locks and sets up the tables of all queues, though it reads those of one: with 300 queues the
-- end of a job took 45 ms instead of 0.3, and its claim 2.5 ms instead of 0.2. To plan each call for one queue alone takes a
-- millisecond. So the originals are only copied, and never called: each is as the copy is, but for the names.

-- A copy that is there is replaced in its place: jobs are claimed and ended meanwhile. With E, backslashes are the same whatever
-- standard_conforming_strings is.
create or replace function tide.job_copy(outbox_id int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    copied   text;
    original text;
begin
    for copied, original in
        select format('%s_%s', p.proname, outbox_id), pg_get_functiondef(p.oid) from pg_proc p
         where p.pronamespace = 'tide'::regnamespace and p.proname ~ '^job_[a-z_]+_in$'
    loop
        original := regexp_replace(original, E'\\m(job_[a-z_]+_in)\\M', format(E'\\1_%s', outbox_id), 'g');
        original := regexp_replace(original, E'\\mtide\\.(job|job_attempt)\\M', format(E'tide.\\1_%s', outbox_id), 'g');
        begin
            execute original;
            execute format('revoke all on function tide.%I from public', copied);
        exception when invalid_function_definition or ambiguous_function then
            -- One that was made of an earlier original takes or returns something else.
            perform tide.job_copies_drop(outbox_id, copied);
            execute original;
            execute format('revoke all on function tide.%I from public', copied);
        end;
    end loop;
end $$;

create or replace function tide.job_copies_drop(outbox_id int, copied text default null) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    copies text;
begin
    select string_agg(p.oid::regprocedure::text, ', ') into copies
      from pg_proc p
     where p.pronamespace = 'tide'::regnamespace and p.proname ~ format('^job_[a-z_]+_in_%s$', outbox_id)
       and (copied is null or p.proname = copied);
    if copies is not null then
        execute format('drop function %s', copies);
    end if;
end $$;

-- Outside of a claim, or of an end: for few calls.
create or replace function tide.job_stored(queue int, job_id bigint) returns setof tide.job
language plpgsql stable rows 1 set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from tide.job_queue q where q.outbox_id = queue) then
        return query execute format('select * from tide.job_stored_in_%s($1, $2)', queue) using queue, job_id;
    end if;
end $$;

-- The same of many: one plan for all of them, which takes longer to make than a job to read.
create or replace function tide.job_stored_of(queue int, ids bigint[]) returns setof tide.job
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from tide.job_queue q where q.outbox_id = queue) then
        return query execute
            format('select j.* from unnest($2) u (id) cross join lateral tide.job_stored_in_%s($1, u.id) j', queue) using queue, ids;
    end if;
end $$;

-- The last first.
create or replace function tide.job_attempts_of(queue int, job_id bigint) returns setof tide.job_attempt
language plpgsql stable rows 1 set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from tide.job_queue q where q.outbox_id = queue) then
        return query execute format('select * from tide.job_attempts_in_%s($1, $2)', queue) using queue, job_id;
    end if;
end $$;

create or replace function tide.job_priorities(queue int, from_id bigint default 0) returns smallint[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    found smallint[];
begin
    if not exists (select from tide.job_queue q where q.outbox_id = queue) then
        return '{0}';
    end if;
    execute format('select tide.job_priorities_in_%s($1, $2)', queue) into found using queue, from_id;
    return found;
end $$;
