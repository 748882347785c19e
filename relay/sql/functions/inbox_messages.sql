-- What people ask about the messages of inboxes, and do to dead ones: numbers that are cheap to look at all the time, lists, replays.
--
-- Lists and replays of operators run with the rights of the owner, so the table is looked at first: see tide.inbox_guard.

create or replace function tide.operate_inboxes() returns void
language sql immutable
begin atomic
end;
comment on function tide.operate_inboxes is 'Does nothing. Who may execute it may list and replay the messages of every inbox.';

-- Others need the rights to the table that they would need without us.
create or replace function tide.inbox_require_operator(box tide.inbox, privileges text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if not has_function_privilege(tide.caller()::name, 'tide.operate_inboxes()'::regprocedure, 'execute')
       and not coalesce((select bool_and(has_table_privilege(tide.caller()::name, to_regclass(tide.inbox_relation(box)), p))
                           from unnest(string_to_array(privileges, ',')) p), false) then
        raise exception 'role % may not % messages of inbox "%"', quote_ident(tide.caller()),
            case when privileges = 'select' then 'read' else 'replay' end, box.name using
            errcode = 'insufficient_privilege',
            hint = format('Let the owner of schema tide, or a role of tide.grant_admin, run: select tide.inbox_grant(%L, %L);',
                          box.name, tide.caller());
    end if;
end $$;

-- Dead messages are counted along their own index, up to 10,000; beyond that the number is the estimate of the planner. An
-- index that never had a row is one page: of most inboxes nothing more is looked at. Schedulers ask, whose loop must not wait for
-- someone who changes a table; and each table is locked until the end, so many inboxes are asked for in pages, by name.
create or replace function tide.inbox_dead_numbers(inboxes text[] default null, after_name text default '', max_inboxes int default null)
returns table (name text, dead bigint, oldest_dead_at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms' set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    box   tide.inbox;
    index regclass;
begin
    perform tide.inbox_require_sight(tide.find_inbox(n)) from unnest(inboxes) n;
    for box in
        select * from tide.inbox i
         where (inboxes is null or i.name = any (inboxes)) and i.name > coalesce(after_name, '') and tide.may_see_inbox(i)
         order by i.name limit max_inboxes
    loop
        name := box.name;
        dead := null;
        oldest_dead_at := null;
        begin
            index := to_regclass(format('%I.%I', box.table_schema, box.name || '_tide_dead'));
            if pg_relation_size(index) <= current_setting('block_size')::int then
                dead := 0;
            else
                perform tide.inbox_guard(box, 'access share');
                execute format('select d.dead, (select min(i.failed_at) from %1$s i where %2$s) '
                               'from (select count(*) as dead from (select from %1$s i where %2$s limit 10000) l) d',
                               tide.inbox_relation(box), tide.inbox_dead(box, 'i.')) into dead, oldest_dead_at;
                if dead = 10000 then
                    dead := greatest(dead, (select c.reltuples::bigint from pg_class c where c.oid = index));
                end if;
            end if;
        exception when insufficient_privilege or invalid_table_definition or wrong_object_type or lock_not_available then
            null;  -- One that cannot be looked at does not hide the others.
        end;
        return next;
    end loop;
end $$;
comment on function tide.inbox_dead_numbers is
    'How many dead messages each inbox has, or these; beyond 10,000 an estimate. Cheap. dead is null of an inbox whose table cannot be read, or is locked.';

-- The column by which the messages of a state are in the order of an index.
create or replace function tide.inbox_state_time(state text) returns text
language sql immutable
return case state when 'dead' then 'failed_at' when 'processed' then 'processed_at' else 'available_at' end;

create or replace function tide.inbox_in_state(box tide.inbox, state text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if state is null or state not in ('dead', 'pending', 'claimed', 'retrying', 'processed') then
        raise exception 'state % of a message is not known', quote_nullable(state) using
            errcode = 'invalid_parameter_value', hint = 'Use dead, pending, claimed, retrying or processed.';
    end if;
    return case state
        when 'dead' then tide.inbox_dead(box, 'i.')
        when 'processed' then 'i.processed_at is not null'
        when 'pending' then tide.inbox_pending(box, 'i.')
        when 'claimed' then tide.inbox_pending(box, 'i.') || ' and i.claimed_by is not null and i.available_at > clock_timestamp()'
        else tide.inbox_pending(box, 'i.') || ' and i.claimed_by is null and i.available_at is not null' end;
end $$;

-- Newest first, along the index of the state. $1 ids, $2 and $3 the end of the page before, $4 since, $5 until.
-- What has no time yet comes before the others: it is a part of its own, so that each part is a range of the index.
create or replace function tide.inbox_messages(
    inbox text, state text default 'dead', event_ids text[] default null, since timestamptz default null,
    until timestamptz default null, before_at timestamptz default null, before_seq bigint default null, max_rows int default 100
) returns setof tide.inbox_listed
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
#variable_conflict use_variable
declare
    box     tide.inbox := tide.find_inbox(inbox);
    in_time text := 'i.' || tide.inbox_state_time(state);
    wanted  text := tide.inbox_in_state(box, state);
    chosen  text;
begin
    perform tide.inbox_require_operator(box, 'select');
    if max_rows is null or max_rows < 1 then
        raise exception 'max_rows is %, it must be at least 1', coalesce(max_rows::text, 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'It is how many messages a page has at most.';
    elsif num_nonnulls(since, until) > 0 and state not in ('dead', 'processed') then
        raise exception 'since and until are for dead and processed messages, not for those that are %', state using
            errcode = 'invalid_parameter_value', hint = 'They are the time at which a message died, or was processed.';
    end if;
    perform tide.inbox_guard(box, 'access share');
    if event_ids is not null then
        chosen := format('select i.* from %s i where i.%I = any ($1::%s[])', tide.inbox_relation(box), box.event_id_col, box.event_id_type);
    else
        chosen := format(
            'select * from (select i.* from %1$s i where %2$s and %3$s is not null '
            'and ($3 is null or $2 is null or (%3$s <= $2 and (%3$s < $2 or i.inbox_seq < $3))) '
            'and ($4 is null or %3$s >= $4) and ($5 is null or %3$s < $5) order by %3$s desc, i.inbox_seq desc limit %4$s) later',
            tide.inbox_relation(box), wanted, in_time, max_rows);
        if state in ('dead', 'pending') and num_nonnulls(since, until) = 0 and (before_seq is null or before_at is null) then
            chosen := format(
                'select * from (select i.* from %1$s i where %2$s and %3$s is null and ($3 is null or i.inbox_seq < $3) '
                'order by %3$s desc, i.inbox_seq desc limit %4$s) first union all %5$s',
                tide.inbox_relation(box), wanted, in_time, max_rows, chosen);
        end if;
    end if;
    return query execute format(
        'select i.%1$I::text, i.inbox_seq, case when i.processed_at is not null then ''processed'' when %2$s then ''dead'' '
        'when i.claimed_by is not null and i.available_at > clock_timestamp() then ''claimed'' '
        'when i.claimed_by is null and i.available_at is not null then ''retrying'' else ''pending'' end, '
        'i.event_type::text, i.source::text, i.aggregate_id::text, i.event_sequence::bigint, i.payload, i.headers, i.trace_id::text, '
        'i.received_at, i.processed_at, i.error::text, i.retry_count, i.failed_at, i.claimed_by::text, i.available_at '
        'from (%3$s) i order by %4$s desc nulls first, i.inbox_seq desc limit %5$s',
        box.event_id_col, tide.inbox_dead(box, 'i.'), chosen, in_time, max_rows)
        using event_ids, before_at, before_seq, since, until;
end $$;
comment on function tide.inbox_messages is
    'Messages of an inbox in one state, newest first, or those of these ids in whatever state. The next page: before_at and before_seq '
    'are the time of the state (failed_at, processed_at, available_at) and the inbox_seq of the last row.';

-- For operators, who have no right to the table. tide.replay_inbox_messages is the same for those who have it, and its own
-- condition keeps what a worker holds.
create or replace function tide.inbox_replay(inbox text, event_ids text[]) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box     tide.inbox := tide.find_inbox(inbox);
    unknown text;
begin
    perform tide.inbox_require_operator(box, 'select,update');
    perform tide.inbox_guard(box, 'row exclusive');
    execute format('select string_agg(quote_literal(g.id), '', '') from (select g.id from unnest($1) g (id) '
                   'where not exists (select from %s i where i.%I = g.id::%s) limit 10) g',
                   tide.inbox_relation(box), box.event_id_col, box.event_id_type) into unknown using event_ids;
    if unknown is not null then
        raise exception 'inbox "%" has no message %', inbox, unknown using
            errcode = 'no_data_found', hint = 'Nothing was changed. It may have been removed by retention.';
    end if;
    return tide.replay_inbox_messages(inbox, event_ids);
end $$;
comment on function tide.inbox_replay is
    'Makes processed, failed and dead messages pending again, all that are named or none; returns how many were not. Not those that a worker holds.';

create or replace function tide.inbox_replay_dead(
    inbox text, since timestamptz default null, until timestamptz default null, max_messages int default 1000
) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s'
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    box tide.inbox := tide.find_inbox(inbox);
    ids text[];
begin
    perform tide.inbox_require_operator(box, 'select,update');
    if max_messages is null or max_messages not between 1 and 10000 then
        raise exception 'max_messages is %, it must be between 1 and 10000', coalesce(max_messages::text, 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'Call it again until it returns 0.';
    end if;
    perform tide.inbox_guard(box, 'row exclusive');
    execute format('select array_agg(d.id) from (select i.%1$I::text as id from %2$s i where %3$s '
                   'and ($1 is null or i.failed_at >= $1) and ($2 is null or i.failed_at < $2 or $1 is null and i.failed_at is null) '
                   'and (i.claimed_by is null or i.available_at <= clock_timestamp()) '
                   'order by i.failed_at limit %4$s for update skip locked) d',
                   box.event_id_col, tide.inbox_relation(box), tide.inbox_dead(box, 'i.'), max_messages) into ids using since, until;
    return case when ids is null then 0 else tide.replay_inbox_messages(inbox, ids) end;
end $$;
comment on function tide.inbox_replay_dead is
    'Makes dead messages pending again, the oldest first, of all or of those that died in that time; returns how many. Call it until it returns 0.';
