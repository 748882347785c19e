-- What `relay api` needs beside writing: to tell a repetition from another message under the same id. And its rights,
-- which are fewer than those of schedulers and workers, because anybody can talk to it.

create function tide.inbox_look(inbox text, event_ids text[], payloads text[])
returns table (is_new boolean, is_same boolean)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    box tide.inbox := tide.find_inbox(inbox);
begin
    perform tide.inbox_guard(box, 'access share');
    -- received_at is when a transaction began: what this one has written was written now.
    return query execute format(
        'select i.received_at = now(), i.payload = r.payload::jsonb '
        '  from unnest($1, $2) with ordinality as r (event_id, payload, n) '
        '  left join %I.%I i on i.%I = r.event_id::%s order by r.n',
        box.table_schema, box.table_name, box.event_id_col, box.event_id_type)
        using event_ids, payloads;
end $$;
comment on function tide.inbox_look is
    'For each message, right after writing it: whether this transaction wrote it, and whether it is the one that is stored.';
revoke all on function tide.inbox_look(text, text[], text[]) from public;

create function tide.grant_api(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.grant_inbox_writer(role);
    execute format('grant select on tide.migration, tide.pipeline, tide.outbox, tide.consumer_group to %I', role);
    execute format('grant execute on function tide.inbox_look(text, text[], text[]) to %I', role);
end $$;
comment on function tide.grant_api is 'Lets a role run the API: read how pipelines are configured, and write inboxes.';
revoke all on function tide.grant_api(name) from public;

-- A role that runs everything runs the API too.
create or replace function tide.grant_relay(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('grant usage on schema tide to %I', role);
    execute format('grant select on tide.migration, tide.outbox, tide.message, tide.consumer_group, tide.bell, tide.scheduler, '
                   'tide.pipeline, tide.drain, tide.dead_letter, tide.inbox, tide.position to %I', role);
    execute format('grant update (invalid_reason) on tide.pipeline to %I', role);
    execute format('grant update on tide.consumer_group, tide.bell, tide.drain to %I', role);
    execute format('grant insert on tide.dead_letter to %I', role);
    execute format('grant insert, update, delete on tide.position to %I', role);
    execute format('grant usage on sequence tide.epochs to %I', role);
    execute format('grant insert, update, delete on tide.scheduler to %I', role);
    execute format('grant execute on function tide.outbox_horizon(int), tide.outbox_last_id(int), tide.outbox_needs_partition(int), '
                   'tide.outbox_extend(text), tide.outbox_oldest_publisher_seconds(int) to %I', role);
    perform tide.grant_api(role);
end $$;
