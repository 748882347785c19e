-- What a reverse drain writes of a batch, in one call: each of its statements is planned once in a session, and not for each batch.

-- Writes the rows of a batch, if it has any, and where the source is resumed, counts what was delivered and what became a dead
-- letter, and renews the lease. The fence is locked before anything is written. No row: fenced.
create or replace function tide.inbox_receive(
    pipeline text, epoch bigint, number bigint, lease_seconds float8, delivered bigint, dead_letters bigint,
    partitions text[], positions text[], inbox text, event_ids text[], event_types text[], sources text[],
    aggregate_ids text[], event_sequences bigint[], payloads text[], headers text[], trace_ids text[]
) returns table (revision bigint, new_rows bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
begin
    perform from tide.drain d
      where d.pipeline = inbox_receive.pipeline and d.epoch = inbox_receive.epoch and d.number = inbox_receive.number
        for update;
    if not found then
        return;
    end if;
    new_rows := 0;
    if event_ids is not null then
        new_rows := tide.inbox_write(inbox, event_ids, event_types, sources, aggregate_ids, event_sequences, payloads, headers, trace_ids);
    end if;
    if cardinality(partitions) > 0 then
        insert into tide.position as p (pipeline, partition, position)
        select inbox_receive.pipeline, r.partition, r.position from unnest(partitions, positions) as r (partition, position)
        on conflict (pipeline, partition) do update set position = excluded.position where p.position <> excluded.position;
    end if;
    -- As durable as the server is told to be.
    set local synchronous_commit to default;
    return query
        update tide.drain d
           set lease_until = clock_timestamp() + make_interval(secs => lease_seconds),
               delivered = d.delivered + inbox_receive.delivered, dead_letters = d.dead_letters + inbox_receive.dead_letters
          from tide.pipeline p
         where d.pipeline = inbox_receive.pipeline and d.epoch = inbox_receive.epoch and d.number = inbox_receive.number
           and p.name = d.pipeline
        returning p.revision, new_rows;
end $$;
comment on function tide.inbox_receive is 'Writes what a drain has received into an inbox, with its positions, under its fence. For relays.';
