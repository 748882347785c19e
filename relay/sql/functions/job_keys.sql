-- Keys of jobs: idempotency, dedupe and debounce. A key is a row of tide.job_key. Who takes one that an open transaction has taken
-- waits for its end: no one can know otherwise. No claim does: see debounce.

-- Takes a key for a new job. Returns the id of the job that has it: the new one, or another.
create or replace function tide.job_key_take(
    outbox_id int, kind "char", key text, new_id bigint, digest bytea, free_on "char", queue text, on_conflict text
) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    holder record;
begin
    -- A dedupe key may be freed between the two statements.
    for attempt in 1 .. 100 loop
        insert into tide.job_key as k (outbox_id, kind, key, id, digest, free_on)
        values (outbox_id, kind, key, new_id, digest, free_on)
        on conflict do nothing;
        if found then
            return new_id;
        end if;
        select k.id, k.digest, k.free_on into holder from tide.job_key k
         where k.outbox_id = job_key_take.outbox_id and k.kind = job_key_take.kind and k.key = job_key_take.key;
        exit when found and (holder.free_on is distinct from 'c' or tide.job_waits(outbox_id, holder.id));
        -- A claim leaves a key that an open transaction debounces to that. If it was rolled back, no one has freed the key.
        update tide.job_key k
           set id = new_id, digest = job_key_take.digest, free_on = job_key_take.free_on, since = clock_timestamp()
         where k.outbox_id = job_key_take.outbox_id and k.kind = job_key_take.kind and k.key = job_key_take.key
           and k.id = holder.id and k.free_on = 'c';
        if found then
            return new_id;
        end if;
        if attempt = 100 then
            raise exception 'key "%" of queue "%" changes too often', key, queue using
                errcode = 'serialization_failure', hint = 'Nothing was enqueued. Try again.';
        end if;
    end loop;
    if kind = 'i' and on_conflict = 'error' and holder.digest is distinct from job_key_take.digest then
        raise exception 'idempotency key "%" of queue "%" belongs to job %, which has another name or payload', key, queue, holder.id using
            errcode = 'unique_violation',
            detail = format('That job is %s.', tide.job_uuid(outbox_id, holder.id)),
            hint = 'Nothing was enqueued. Use another key, or keep the first job: on_conflict => ''ignore''; or: relay jobs enqueue --ignore-conflict.';
    end if;
    return holder.id;
end $$;

-- A job that waits with the same key is replaced by the new one, later than it by `debounce`; but not later than debounce_max
-- after the first. Returns when the new one is due. A claim does not wait for the key, nor this for a claim: where the old job
-- is being claimed, it is left to that.
create or replace function tide.job_debounce(
    outbox_id int, key text, new_id bigint, digest bytea, queue text, debounce interval, debounce_max interval
) returns timestamptz
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    holder record;
    began  timestamptz := clock_timestamp();
begin
    for look in 1 .. 100 loop
        insert into tide.job_key as k (outbox_id, kind, key, id, digest, free_on, since)
        values (outbox_id, 'd', key, new_id, digest, 'c', began)
        on conflict do nothing;
        if found then
            return began + debounce;
        end if;
        select k.id, k.since into holder from tide.job_key k
         where k.outbox_id = job_debounce.outbox_id and k.kind = 'd' and k.key = job_debounce.key for update;
        if found then
            with waiting as (
                select w.id from tide.job_wait w where w.outbox_id = job_debounce.outbox_id and w.id = holder.id for update skip locked
            ), replaced as (
                delete from tide.job_wait w using waiting r where w.outbox_id = job_debounce.outbox_id and w.id = r.id
                returning w.id, w.attempt
            ), kept as (
                delete from tide.job_kept j using replaced r where j.outbox_id = job_debounce.outbox_id and j.id = r.id
            )
            insert into tide.job_attempt (outbox_id, id, attempt, worker_id, ms, outcome, code, error)
            select job_debounce.outbox_id, r.id, r.attempt, 0, 0, 'c', 'replaced', format('Debounced: job %s is done instead.', new_id)
              from replaced r;
            if found then
                began := holder.since;
                perform tide.job_followed(array[outbox_id], array[holder.id], '{c}') where tide.job_follows();
            end if;
            update tide.job_key k set id = new_id, digest = job_debounce.digest, free_on = 'c', since = began
             where k.outbox_id = job_debounce.outbox_id and k.kind = 'd' and k.key = job_debounce.key;
            return least(clock_timestamp() + debounce, began + debounce_max);
        end if;
    end loop;
    raise exception 'key "%" of queue "%" changes too often', key, queue using
        errcode = 'serialization_failure', hint = 'Nothing was enqueued. Try again.';
end $$;

-- The keys of a job, if it has them: the id of the job that has them, and when that is due. An idempotency key stays with a job
-- whose dedupe key is in use.
create or replace function tide.job_keys_take(
    outbox_id int, queue text, new_id bigint, name text, payload jsonb, kind text, idempotency_key text, dedupe_key text,
    on_conflict text, dedupe text, debounce interval, debounce_max interval, available_at timestamptz, out holder bigint, out due timestamptz
)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    digest bytea := sha256(convert_to(concat_ws(E'\n', kind, name, payload::text), 'UTF8'));
begin
    holder := new_id;
    due := available_at;
    if coalesce(on_conflict, '') not in ('error', 'ignore') then
        raise exception 'on_conflict % is not known', coalesce(quote_literal(on_conflict), 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'Use error or ignore. Nothing was enqueued.';
    elsif dedupe not in ('waiting', 'unfinished') or dedupe is not null and dedupe_key is null then
        raise exception 'dedupe % of the job for queue "%" is not possible', quote_literal(dedupe), queue using
            errcode = 'invalid_parameter_value',
            hint = 'Use waiting or unfinished, and give a dedupe_key (relay jobs: --dedupe-key). Nothing was enqueued.';
    elsif debounce is not null and (dedupe_key is null or dedupe is not null or available_at is not null
                                    or debounce < interval '0' or coalesce(debounce_max < debounce, false)) then
        raise exception 'debounce % of the job for queue "%" is not possible', debounce, queue using
            errcode = 'invalid_parameter_value',
            hint = 'Give a dedupe_key, neither dedupe nor available_at, and a debounce_max that is not shorter. Nothing was enqueued.';
    end if;
    if idempotency_key is not null then
        holder := tide.job_key_take(outbox_id, 'i', idempotency_key, new_id, digest, null, queue, on_conflict);
    end if;
    if debounce is not null and holder = new_id then
        due := tide.job_debounce(outbox_id, dedupe_key, new_id, digest, queue, debounce, debounce_max);
    elsif dedupe is not null and holder = new_id then
        holder := tide.job_key_take(outbox_id, 'd', dedupe_key, new_id, digest, case dedupe when 'waiting' then 'c'::"char" else 'e' end, queue,
                                    'ignore');
        if holder <> new_id and idempotency_key is not null then
            update tide.job_key k set id = holder
             where k.outbox_id = job_keys_take.outbox_id and k.kind = 'i' and k.key = idempotency_key and k.id = new_id;
        end if;
    end if;
end $$;
