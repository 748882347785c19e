-- Snapshots of stream tables: a table with the rows as they were, whose comment says of what and of when it is. So it can be dumped,
-- and restored where nothing else is known of it.
--
-- A stream table can go on from the frontier of a snapshot if the frontier means something here, and if every change since is still
-- there. That is known in the database in which the snapshot was taken, and in physical copies of it: tide.stream_snapshot has a row
-- for it. Elsewhere the rows are restored, and the next refresh computes everything and writes what differs.
--
-- The state of aggregates is kept beside it, in tide_stream.s_<stream_id>_<snapshot_id>. It is of one plan, and goes with it.

-- Whether everything that is visible in the one is visible in the other.
create or replace function tide.snapshot_within(inner_one pg_snapshot, outer_one pg_snapshot) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic
    select pg_snapshot_xmax(inner_one) <= pg_snapshot_xmax(outer_one)
           and not exists (select from pg_snapshot_xip(outer_one) x where pg_visible_in_snapshot(x, inner_one));
end;

-- A snapshot in which is visible what is visible in either.
create or replace function tide.snapshot_union(one pg_snapshot, other pg_snapshot) returns pg_snapshot
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic
    select format('%s:%s:%s', coalesce(r.running[1], pg_snapshot_xmax(of.later)), pg_snapshot_xmax(of.later), array_to_string(r.running, ','))::pg_snapshot
      from (select case when pg_snapshot_xmax(one) >= pg_snapshot_xmax(other) then one else other end as later,
                   case when pg_snapshot_xmax(one) >= pg_snapshot_xmax(other) then other else one end as earlier) of
     cross join lateral (select array(select x from pg_snapshot_xip(of.later) x where not pg_visible_in_snapshot(x, of.earlier) order by x) as running) r;
end;

-- Notes that changes of these sources were removed, in the transaction that removed them and after it did. They were visible in the
-- frontiers of all stream tables that are refreshed, which have only moved on since; where there was none, in our own snapshot.
-- Any of these will do, since what was removed is visible in each; the least has the lowest end, and of equal ends the most ids still
-- open. Snapshots of one database are in each other, but frontiers of a group (tide.stream_frontier_of) may not be: what was noted
-- before stays noted.
create or replace function tide.stream_note_cleaned(sources oid[]) returns void
language sql volatile set search_path = pg_catalog, pg_temp
begin atomic
    insert into tide.stream_cleaned as c (source, cleaned)
    select s.source, coalesce((select f.frontier
                                 from tide.stream_source r join tide.stream line using (stream_id) join tide.stream_state f using (stream_id)
                                where r.source = s.source and not line.suspended and line.tier <> 'frozen' and not tide.stream_is_immediate(line.stream_id) and f.frontier is not null
                                order by pg_snapshot_xmax(f.frontier), (select count(*) from pg_snapshot_xip(f.frontier)) desc limit 1),
                              pg_current_snapshot())
      from (select distinct unnest(sources) as source) s
    on conflict (source) do update set cleaned = tide.snapshot_union(c.cleaned, excluded.cleaned) where not tide.snapshot_within(excluded.cleaned, c.cleaned);
end;

-- What makes the rows of two stream tables mean the same.
create or replace function tide.stream_query_hash(line tide.stream) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic select md5(pg_get_viewdef(format('tide_stream.q_%s', line.stream_id)::regclass) || line.settings::text); end;

-- What the comment of a table says, if it is a snapshot. Anyone may write a comment to a table of their own.
create or replace function tide.snapshot_facts(
    relation oid, out snapshot_id uuid, out stream_table text, out row_count bigint, out data_timestamp timestamptz, out created_at timestamptz,
    out frontier text
)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    facts jsonb;
begin
    facts := obj_description(relation, 'pg_class');
    select (facts ->> 'tide_snapshot')::uuid, facts ->> 'stream_table', (facts ->> 'rows')::bigint, (facts ->> 'data_timestamp')::timestamptz,
           (facts ->> 'created_at')::timestamptz, facts ->> 'frontier'
      into snapshot_id, stream_table, row_count, data_timestamp, created_at, frontier;
exception when data_exception or program_limit_exceeded then
    null;
end $$;

create or replace function tide.list_snapshots(name text default null) returns table (
    snapshot_table text, created_at timestamptz, row_count bigint, frontier text, size_bytes bigint, stream_table text, data_timestamp timestamptz
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select format('%I.%I', n.nspname, c.relname), f.created_at, f.row_count, f.frontier, pg_total_relation_size(c.oid), f.stream_table, f.data_timestamp
      from pg_description d join pg_class c on c.oid = d.objoid and c.relkind = 'r' join pg_namespace n on n.oid = c.relnamespace
     cross join lateral tide.snapshot_facts(c.oid) f
     where d.classoid = 'pg_class'::regclass and d.objsubid = 0 and d.description like E'{%"tide\\_snapshot"%' and f.snapshot_id is not null
       and (list_snapshots.name is null or f.stream_table = (tide.find_stream(list_snapshots.name)).name)
     order by f.created_at
$$;
comment on function tide.list_snapshots is 'The tables that are snapshots of stream tables, or of one of them, the oldest first.';

create or replace function tide.find_snapshot(source text) returns regclass
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    found_tables regclass[] := array(
        select c.oid from tide.list_snapshots() s join pg_class c on c.oid = s.snapshot_table::regclass join pg_namespace n on n.oid = c.relnamespace
         where source in (s.snapshot_table, n.nspname || '.' || c.relname, quote_ident(c.relname), c.relname));
begin
    if cardinality(found_tables) <> 1 then
        raise exception 'there is not one snapshot % but %', coalesce('"' || source || '"', 'NULL'), cardinality(found_tables) using
            errcode = 'undefined_object', hint = 'List them, with their schemas: select * from tide.list_snapshots().';
    end if;
    return found_tables[1];
end $$;

-- Where the state of aggregates is kept for a snapshot.
create or replace function tide.snapshot_state(stream_id int, snapshot_id uuid) returns text
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic select format('tide_stream.s_%s_%s', stream_id, replace(snapshot_id::text, '-', '')); end;

-- What is kept for a snapshot beside its table.
create or replace function tide.snapshot_forget(ids uuid[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    gone tide.stream_snapshot;
begin
    for gone in delete from tide.stream_snapshot s where s.snapshot_id = any (ids) returning * loop
        execute format('drop table if exists %s', tide.snapshot_state(gone.stream_id, gone.snapshot_id));
    end loop;
end $$;

create or replace function tide.snapshot_stream_table(name text, target text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line  tide.stream := tide.find_stream(name);
    state tide.stream_state;
    parts text[] := parse_ident(target);
    taken uuid := gen_random_uuid();
    copy  text;
    count bigint;
begin
    if cardinality(parts) = 1 then
        parts := (select n.nspname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = line.relation) || parts;
    end if;
    if cardinality(parts) is distinct from 2 then
        raise exception '% is no name of a table', coalesce('"' || target || '"', 'NULL') using errcode = 'invalid_name', hint = 'Give schema.table, or a table alone.';
    end if;
    copy := format('%I.%I', parts[1], parts[2]);
    -- A refresh locks this row before it writes: the last one has been committed, and none writes while we hold it. So the next
    -- statement, which has a snapshot of its own in READ COMMITTED, sees the rows of this frontier. In a transaction that sees
    -- older rows, because it is REPEATABLE READ, this fails.
    select * into state from tide.stream_state s where s.stream_id = line.stream_id for share;
    if state.data_timestamp is null then
        raise exception 'stream table "%" has not been filled yet', line.name using
            errcode = 'object_not_in_prerequisite_state', hint = 'Wait for its first refresh: select * from tide.stream_tables().';
    end if;
    if tide.stream_is_immediate(line.stream_id) then
        -- It has no frontier: it is equal to its query in every snapshot.
        state.frontier := null;
        state.data_timestamp := clock_timestamp();
    end if;
    execute format('create table %s as select %s from %s', copy, tide.stream_column_list(line), line.relation);
    get diagnostics count = row_count;
    execute format('comment on table %s is %L', copy, jsonb_build_object(
        'tide_snapshot', taken, 'stream_table', line.name, 'rows', count, 'data_timestamp', state.data_timestamp,
        'created_at', clock_timestamp(), 'frontier', state.frontier, 'cluster', state.cluster, 'query_hash', tide.stream_query_hash(line)));
    -- Snapshots whose tables were dropped by DROP TABLE.
    perform tide.snapshot_forget(array(
        select s.snapshot_id from tide.stream_snapshot s
         where s.stream_id = line.stream_id
           and not exists (select from pg_description d where d.classoid = 'pg_class'::regclass and strpos(d.description, s.snapshot_id::text) > 0)));
    if state.frontier is not null then
        insert into tide.stream_snapshot (snapshot_id, stream_id, frontier, cluster, sources, query_hash)
        values (taken, line.stream_id, state.frontier, state.cluster, state.sources, tide.stream_query_hash(line));
        if exists (select from tide.stream_plan p where p.stream_id = line.stream_id and p.kind = 'state' and p.filled) then
            execute format('create table %s as table tide_stream.s_%s', tide.snapshot_state(line.stream_id, taken), line.stream_id);
        end if;
    end if;
    return copy;
end $$;
comment on function tide.snapshot_stream_table is 'Copies the rows of a stream table, as of its last refresh, to a new table. Returns the name of that.';

create or replace function tide.stream_column_list(line tide.stream) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select string_agg(quote_ident(a.attname), ', ' order by a.attnum) from pg_attribute a
     where a.attrelid = format('tide_stream.q_%s', line.stream_id)::regclass and a.attnum > 0;
end;

-- Reading it runs nothing of its owner's, and its rows are rows of the stream table.
create or replace function tide.snapshot_check(line tide.stream, source regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('lock table only %s in access share mode', source);
    if exists (select from pg_class c where c.oid = source and (c.relrowsecurity or c.relkind <> 'r'))
       or exists (select from pg_attribute a where a.attrelid = source and a.attgenerated <> '') then
        raise exception '% is not a plain table', source using
            errcode = 'wrong_object_type', hint = 'A snapshot has neither row security nor generated columns.';
    elsif (select array_agg((a.attname, a.atttypid, a.atttypmod, a.attcollation) order by a.attname)
             from pg_attribute a where a.attrelid = source and a.attnum > 0 and not a.attisdropped)
          is distinct from
          (select array_agg((a.attname, a.atttypid, a.atttypmod, a.attcollation) order by a.attname)
             from pg_attribute a where a.attrelid = format('tide_stream.q_%s', line.stream_id)::regclass and a.attnum > 0) then
        raise exception 'snapshot % has other columns than stream table "%"', source, line.name using
            errcode = 'datatype_mismatch', hint = 'Restore it into a stream table with the query of then.';
    end if;
end $$;

-- Why a stream table cannot go on from a snapshot; null if it can. See the head of this file.
create or replace function tide.snapshot_unusable(line tide.stream, snap tide.stream_snapshot) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case
        when snap.stream_id is distinct from line.stream_id then 'the snapshot is of another database or stream table, or has no frontier'
        when line.suspended or line.tier = 'frozen' then 'the stream table is not refreshed now'
        when snap.cluster <> tide.stream_cluster() or pg_snapshot_xmax(snap.frontier) > pg_snapshot_xmax(pg_current_snapshot())
            then 'the database is a copy'
        when snap.query_hash <> tide.stream_query_hash(line) then 'the query was changed'
        when snap.sources is distinct from tide.stream_sources_now(line.stream_id) then 'the capture of its sources was changed'
        when to_regclass(format('tide_stream.s_%s', line.stream_id)) is not null
             and to_regclass(tide.snapshot_state(line.stream_id, snap.snapshot_id)) is null then 'the state of its aggregates was not kept with it'
        when exists (select from tide.stream_node_plans(line.stream_id)) then 'its hidden nodes are of another moment'
        when exists (select from tide.stream_source s join tide.stream_cleaned c using (source)
                      where s.stream_id = line.stream_id and not tide.snapshot_within(c.cleaned, snap.frontier))
            then 'changes since then were removed' end
$$;

-- The state of aggregates becomes that of a snapshot. No refresh reads it meanwhile: the row of the frontier is locked.
create or replace function tide.snapshot_restore_state(line tide.stream, snap tide.stream_snapshot) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if to_regclass(format('tide_stream.s_%s', line.stream_id)) is not null then
        execute format('truncate tide_stream.s_%s', line.stream_id);
        execute format('insert into tide_stream.s_%s table %s', line.stream_id, tide.snapshot_state(line.stream_id, snap.snapshot_id));
        update tide.stream_plan p set filled = true where p.stream_id = line.stream_id and not p.filled;
    end if;
end $$;

-- Writes what differs, as a full refresh does, and publishes it.
create or replace function tide.snapshot_write(line tide.stream, source regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.stream_told_make(line);
    perform set_config('tide.refreshing', line.relation::oid::text, true);
    execute format(
        'with both_ as materialized (
             select %1$s, min(__ctid) as __ctid, count(__ctid) as __old
               from (select %1$s, ctid as __ctid, row_number() over (partition by %1$s) as __n from %2$s
                      union all
                     select %1$s, null, row_number() over (partition by %1$s) from only %3$s) r
              group by %1$s, __n having count(*) = 1),
         %4$s
         deleted_ as (delete from %2$s t using both_ b where b.__old = 1 and t.ctid = b.__ctid)
         insert into %2$s (%1$s) select %1$s from both_ where __old = 0',
        tide.stream_column_list(line), line.relation, source,
        case when line.outbox_id is not null then
            format('told_ as (insert into pg_temp.tide_told (__came, __times, %1$s) select __old = 0, 1, %1$s from both_),', tide.stream_column_list(line)) end);
    perform set_config('tide.refreshing', '', true);
    if line.outbox_id is not null then
        perform tide.stream_publish(line, null);
    end if;
end $$;

create or replace function tide.restore_from_snapshot(name text, source text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line  tide.stream := tide.find_stream(name);
    copy  regclass := tide.find_snapshot(source);
    facts record;
    snap  tide.stream_snapshot;
    why   text;
begin
    -- What was removed since is to be seen.
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'a stream table is restored in a transaction that is READ COMMITTED' using errcode = 'invalid_transaction_state';
    end if;
    -- Its writers would change rows that are not there. They maintain it again after the next refresh.
    perform tide.stream_immediate_end(line.stream_id);
    -- No refresh runs, and nothing is removed while we look: tide.stream_clean takes the second lock before its look at frontiers.
    perform from tide.stream_state s where s.stream_id = line.stream_id for update;
    lock table tide.stream_cleaned in share row exclusive mode;
    perform tide.snapshot_check(line, copy);
    select * into facts from tide.snapshot_facts(copy);
    select * into snap from tide.stream_snapshot s where s.snapshot_id = facts.snapshot_id;
    why := tide.snapshot_unusable(line, snap);
    perform tide.snapshot_write(line, copy);
    if why is null then
        perform tide.snapshot_restore_state(line, snap);
    end if;
    update tide.stream_state s
       set frontier = case when why is null then snap.frontier end, cluster = tide.stream_cluster(), sources = snap.sources,
           data_timestamp = facts.data_timestamp, refreshed_at = clock_timestamp()
     where s.stream_id = line.stream_id;
    return why;
end $$;
comment on function tide.restore_from_snapshot is
    'Makes the rows of a stream table those of a snapshot. Returns why the next refresh computes everything; null: it goes on from the snapshot.';

create or replace function tide.drop_snapshot(source text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    copy regclass := tide.find_snapshot(source);
begin
    perform tide.snapshot_forget(array[(tide.snapshot_facts(copy)).snapshot_id]);
    execute format('drop table %s', copy);
end $$;
comment on function tide.drop_snapshot is 'Drops the table of a snapshot. It refuses any other table.';
