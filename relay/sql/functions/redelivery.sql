-- Dead letters and replays.
--
-- People ask, and the pipeline's own drains do: a dead letter that is to be retried carries the request, a range that is
-- to be replayed is a row of tide.replay. A drain looks for both after its live messages, sends them through the same
-- sink (or decodes them again into the same inbox), and settles them under its fence. The offset never moves for them.

create or replace function tide.redelivery_floor(outbox_id int) returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select min(r.next_id) from tide.replay r where r.ended_at is null and r.outbox_id = redelivery_floor.outbox_id;
end;
comment on function tide.redelivery_floor is 'The lowest id that a replay still wants; null if none does.';

-- Wakes the owner of a pipeline, as a publisher would. A reverse pipeline looks on its own while it waits.
create or replace function tide.redelivery_wake(pipeline text) returns void
language sql security definer set search_path = pg_catalog, pg_temp
begin atomic
    select pg_notify('tide_outbox_notify', o.name)
      from tide.pipeline p
      join tide.consumer_group g on g.group_id = p.group_id
      join tide.outbox o on o.outbox_id = g.outbox_id
     where p.name = redelivery_wake.pipeline;
end;

-- A pipeline that is made again under the name of one that is gone has not been asked for anything.
create or replace function tide.forget_requests() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    update tide.dead_letter d set retry_requested_at = null
     where d.pipeline = old.name and d.retry_requested_at is not null;
    return null;
end $$;
create or replace trigger forget_requests after delete on tide.pipeline for each row execute function tide.forget_requests();

-- What a replay wants is in an outbox that the pipeline reads no more.
create or replace function tide.end_replays() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    update tide.replay r set ended_at = clock_timestamp()
     where r.pipeline = new.name and r.ended_at is null
       and r.outbox_id is distinct from (select g.outbox_id from tide.consumer_group g where g.group_id = new.group_id);
    if found then
        raise notice 'pipeline "%" reads another outbox now: what it was asked to replay has ended where it was', new.name;
    end if;
    return null;
end $$;
create or replace trigger end_replays after update of group_id on tide.pipeline
    for each row when (old.group_id is distinct from new.group_id) execute function tide.end_replays();

create or replace function tide.relay_dlq_list(
    pipeline text default null, max_rows int default 1000, after_id bigint default 0, code text default null
) returns table (
    dead_letter_id bigint, pipeline text, outbox text, message_id bigint, inbox text, event_id text, subject text, key text,
    headers jsonb, payload jsonb, body bytea, code text, reason text, attempts int, published_at timestamptz,
    first_failed_at timestamptz, failed_at timestamptz, retry_requested_at timestamptz
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select d.dead_letter_id, d.pipeline, d.outbox, d.message_id, d.inbox, d.event_id, d.subject, d.key,
           d.headers, d.payload, d.body, d.code, d.reason, d.attempts, d.published_at,
           d.first_failed_at, d.failed_at, d.retry_requested_at
      from tide.dead_letter d
     where (relay_dlq_list.pipeline is null or d.pipeline = relay_dlq_list.pipeline) and d.dead_letter_id > coalesce(after_id, 0)
       and (relay_dlq_list.code is null or d.code = relay_dlq_list.code)
     order by d.dead_letter_id
     limit max_rows
$$;
comment on function tide.relay_dlq_list is
    'Dead letters in the order of their ids, of one pipeline or of all, with one code or any; after_id is the last id of the page before.';

create or replace function tide.refuse_dead_letter(dead_letter_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception 'dead letter % does not exist', coalesce(dead_letter_id::text, 'NULL') using
        errcode = 'undefined_object',
        hint = 'It may have been retried or discarded. List what there is: select * from tide.relay_dlq_list(); or: relay dead-letter list';
end $$;

create or replace function tide.direction_of(letter tide.dead_letter) returns text
language sql immutable
return case when (letter).outbox is null then 'reverse' else 'forward' end;

create or replace function tide.relay_dlq_retry(dead_letter_id bigint) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    letter tide.dead_letter;
begin
    select * into letter from tide.dead_letter d where d.dead_letter_id = relay_dlq_retry.dead_letter_id;
    if not found then
        perform tide.refuse_dead_letter(dead_letter_id);
    end if;
    if (tide.find_pipeline(letter.pipeline)).direction <> tide.direction_of(letter) then
        raise exception 'dead letter % is of another pipeline "%" than the one that has this name now', dead_letter_id, letter.pipeline
            using errcode = 'object_not_in_prerequisite_state',
            hint = 'It was made by a pipeline of the other direction, which is gone. Discard it, or publish the message again.';
    end if;
    update tide.dead_letter d set retry_requested_at = coalesce(d.retry_requested_at, clock_timestamp())
     where d.dead_letter_id = letter.dead_letter_id;
    perform tide.redelivery_wake(letter.pipeline);
    return 1;
end $$;
comment on function tide.relay_dlq_retry(bigint) is
    'Has the pipeline send a dead letter again. Delivered, it is gone; refused again, it stays, with one attempt more.';

create or replace function tide.relay_dlq_retry(pipeline text) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line  tide.pipeline := tide.find_pipeline(pipeline);
    asked int;
begin
    update tide.dead_letter d set retry_requested_at = clock_timestamp()
     where d.pipeline = line.name and d.retry_requested_at is null and tide.direction_of(d) = line.direction;
    get diagnostics asked = row_count;
    perform tide.redelivery_wake(pipeline);
    return asked;
end $$;
comment on function tide.relay_dlq_retry(text) is 'The same for every dead letter of a pipeline; returns how many.';

create or replace function tide.relay_dlq_discard(dead_letter_id bigint) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
begin
    delete from tide.dead_letter d where d.dead_letter_id = relay_dlq_discard.dead_letter_id;
    if not found then
        perform tide.refuse_dead_letter(dead_letter_id);
    end if;
    return 1;
end $$;
comment on function tide.relay_dlq_discard is 'Deletes a dead letter permanently.';

create or replace function tide.relay_dlq_purge(pipeline text, older_than interval default '0') returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    purged bigint;
begin
    if pipeline is null then
        raise exception 'no pipeline was named' using
            errcode = 'null_value_not_allowed', hint = 'Name the pipeline whose dead letters are to be forgotten.';
    end if;
    delete from tide.dead_letter d
     where d.pipeline = relay_dlq_purge.pipeline and d.failed_at <= clock_timestamp() - older_than;
    get diagnostics purged = row_count;
    if purged = 0 then
        -- Of a pipeline that is gone there may be dead letters still; a misspelt one has none.
        perform from tide.pipeline p where p.name = relay_dlq_purge.pipeline;
        if not found then
            perform tide.refuse_pipeline(pipeline);
        end if;
    end if;
    return purged;
end $$;
comment on function tide.relay_dlq_purge is 'Deletes permanently the dead letters of a pipeline, all or those that are older; returns how many.';

-- For status: no more than count_limit are counted, and none is read.
create or replace function tide.dead_letters_now(pipeline text, count_limit int) returns int
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select count(*)::int
      from (select from tide.dead_letter d where d.pipeline = dead_letters_now.pipeline limit dead_letters_now.count_limit) d;
end;
comment on function tide.dead_letters_now is 'How many dead letters a pipeline has, up to count_limit.';

create or replace function tide.relay_dlq_stats(pipeline text default null)
returns table (
    pipeline text, code text, dead_letters bigint, retrying bigint, most_attempts int, oldest_at timestamptz, newest_at timestamptz
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select d.pipeline, d.code, count(*), count(d.retry_requested_at), max(d.attempts), min(d.first_failed_at), max(d.failed_at)
      from tide.dead_letter d
     where relay_dlq_stats.pipeline is null or d.pipeline = relay_dlq_stats.pipeline
     group by d.pipeline, d.code
     order by d.pipeline, d.code
$$;
comment on function tide.relay_dlq_stats is 'How many dead letters each pipeline has, by the code of what was wrong.';

-- Replays -------------------------------------------------------------------------------------------------------------

-- The pipeline and its group, if the range can be replayed: what lies above the offset is still to be delivered.
create or replace function tide.replay_range(
    pipeline text, from_id bigint, inout to_id bigint, out outbox_id int, out group_id int
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    line   tide.pipeline := tide.find_pipeline(pipeline);
    behind tide.consumer_group;
begin
    if line.direction = 'jobs' then
        raise exception 'pipeline "%" is a queue of jobs', line.name using
            errcode = 'wrong_object_type', hint = 'Replay jobs: select tide.job_replay(...); or: relay jobs replay.';
    elsif line.direction = 'stream' then
        raise exception 'pipeline "%" is of a stream table', line.name using
            errcode = 'wrong_object_type', hint = 'It reads tables, not an outbox. To refresh it: select tide.refresh_stream_table(...).';
    elsif line.direction <> 'forward' then
        raise exception 'pipeline "%" is a reverse pipeline', line.name using
            errcode = 'wrong_object_type',
            hint = 'Replay reads an outbox again. For messages of an inbox: relay inbox replay, or tide.replay_inbox_messages.';
    end if;
    select * into behind from tide.consumer_group g where g.group_id = line.group_id;
    behind.offset_id := tide.settled_id(line.group_id);
    to_id := coalesce(to_id, behind.offset_id);
    if from_id is null or from_id < 1 or from_id > to_id then
        raise exception 'from % to % is no range of ids', coalesce(from_id::text, 'NULL'), to_id using
            errcode = 'invalid_parameter_value', hint = 'Give the first and the last id; both are delivered.';
    elsif to_id > behind.offset_id then
        raise exception 'pipeline "%" has settled its messages up to %, and will deliver those above without a replay',
            line.name, behind.offset_id using
            errcode = 'invalid_parameter_value', hint = format('Replay up to %s at most.', behind.offset_id);
    end if;
    outbox_id := behind.outbox_id;
    group_id := behind.group_id;
end $$;

create or replace function tide.relay_replay(pipeline text, from_id bigint, to_id bigint default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line   record;
    new_id bigint;
begin
    select r.* into line from tide.replay_range(pipeline, from_id, to_id) r;
    insert into tide.replay (pipeline, outbox_id, from_id, to_id, next_id, requested_by)
    values (pipeline, line.outbox_id, from_id, line.to_id, from_id, tide.caller())
    returning replay_id into new_id;
    perform tide.redelivery_wake(pipeline);
    return new_id;
end $$;
comment on function tide.relay_replay is
    'Has the pipeline deliver a range of ids once more, beside what is new; returns the number of the replay. to_id: default the offset.';

-- The ids of what was published in a time, of what is kept and settled. Transactions that publish at the same time mix, so
-- messages of other times may lie between. created_at has no index: this reads all that the outbox keeps.
create or replace function tide.relay_replay_span(
    pipeline text, since timestamptz default null, until timestamptz default null,
    out from_id bigint, out to_id bigint, out oldest_kept_id bigint, out oldest_kept_at timestamptz
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan as $$
declare
    line   tide.pipeline := tide.find_pipeline(pipeline);
    behind tide.consumer_group;
begin
    if line.direction <> 'forward' then
        perform tide.replay_range(pipeline, 1, 1);
    end if;
    select * into behind from tide.consumer_group g where g.group_id = line.group_id;
    behind.offset_id := tide.settled_id(line.group_id);
    select m.id, m.created_at into oldest_kept_id, oldest_kept_at
      from tide.message m where m.outbox_id = behind.outbox_id order by m.id limit 1;
    select min(m.id), max(m.id) into from_id, to_id
      from tide.message m
     where m.outbox_id = behind.outbox_id and m.id <= behind.offset_id
       and (since is null or m.created_at >= since) and (until is null or m.created_at < until);
    if from_id is null then
        raise exception 'outbox "%" keeps no message of that time that pipeline "%" has settled',
            (select o.name from tide.outbox o where o.outbox_id = behind.outbox_id), pipeline using
            errcode = 'no_data_found',
            hint = case when oldest_kept_id is null then 'It keeps no message at all: retention has removed them, or none was published.'
                        else format('It keeps messages from %s on, which was published at %s; settled are those up to %s. What is older '
                                    'was removed by retention.', oldest_kept_id,
                                    to_char(oldest_kept_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), behind.offset_id) end;
    end if;
end $$;
comment on function tide.relay_replay_span is
    'The first and the last id that were published in a time, of those that are kept and that the pipeline has settled.';

create or replace function tide.relay_replay_preview(
    pipeline text, from_id bigint, to_id bigint default null,
    out messages bigint, out bytes bigint, out first_id bigint, out last_id bigint, out first_at timestamptz,
    out last_at timestamptz, out dead_letters bigint, out oldest_kept_id bigint
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
-- A generic plan would lock and plan every partition of every outbox.
set plan_cache_mode = force_custom_plan as $$
declare
    line record;
begin
    select r.* into line from tide.replay_range(pipeline, from_id, to_id) r;
    select count(*), coalesce(sum(tide.message_size(m.size, m.payload, m.headers, m.key)), 0), min(m.id), max(m.id), min(m.created_at), max(m.created_at)
      into messages, bytes, first_id, last_id, first_at, last_at
      from tide.message m
     where m.outbox_id = line.outbox_id and m.id between relay_replay_preview.from_id and line.to_id;
    select count(*) into dead_letters
      from tide.dead_letter d
      join tide.outbox o on o.name = d.outbox and o.outbox_id = line.outbox_id
     where d.pipeline = relay_replay_preview.pipeline and d.message_id between relay_replay_preview.from_id and line.to_id;
    select m.id into oldest_kept_id from tide.message m where m.outbox_id = line.outbox_id order by m.id limit 1;
end $$;
comment on function tide.relay_replay_preview is
    'What a replay would deliver: messages that are kept still, and how many of them are dead letters of the pipeline.';

create or replace function tide.relay_replays(pipeline text default null)
returns table (
    replay_id bigint, pipeline text, from_id bigint, to_id bigint, next_id bigint, requested_by text, requested_at timestamptz,
    delivered bigint, dead_letters bigint, ended_at timestamptz
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select r.replay_id, r.pipeline, r.from_id, r.to_id, r.next_id, r.requested_by, r.requested_at, r.delivered, r.dead_letters,
           r.ended_at
      from tide.replay r
     where relay_replays.pipeline is null or r.pipeline = relay_replays.pipeline
     order by r.replay_id
$$;
comment on function tide.relay_replays is 'The replays that were asked for, and how far each has come.';

create or replace function tide.relay_replay_cancel(replay_id bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    was_open boolean;
begin
    select r.ended_at is null into was_open from tide.replay r where r.replay_id = relay_replay_cancel.replay_id for update;
    if not found then
        raise exception 'replay % does not exist', coalesce(replay_id::text, 'NULL') using
            errcode = 'undefined_object', hint = 'List the replays: select * from tide.relay_replays(); or: relay replays list';
    end if;
    update tide.replay r set ended_at = clock_timestamp()
     where r.replay_id = relay_replay_cancel.replay_id and r.ended_at is null;
    return was_open;
end $$;
comment on function tide.relay_replay_cancel is 'Ends a replay after the batch in hand: true if it was still running.';
