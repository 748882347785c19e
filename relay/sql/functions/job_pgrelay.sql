-- What the callers of PgRelay expect of an enqueue beside the id: the job's UUID, whether it is new, and its status.

-- Called in the statement that enqueues: the id is then that of a new job if and only if it was the last taken in this session.
create or replace function tide.job_enqueued(queue text, id bigint, out job_id uuid, out created boolean, out status text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    in_outbox tide.outbox := tide.find_outbox('jobs/' || (tide.find_job_queue(queue)).name);
begin
    job_id := tide.job_uuid(in_outbox.outbox_id, id);
    created := id = currval(in_outbox.ids);
    status := case when created then 'pending' else tide.job_state(queue, id) end;
end $$;
comment on function tide.job_enqueued is
    'For the argument id => tide.job_enqueue(...): the UUID of the job, whether this call created it, and its status.';
