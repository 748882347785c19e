-- Hidden nodes below a stream table: parts of its query, such as a subquery that groups, each kept in a table of its own.
--
-- tide_stream.q_<id> is the query of a node, over tables and the nodes before it, tide_stream.n_<id> its table, and tide_stream.d_n<id>
-- stands for its net change. tide_stream.r_<id> is the query of the stream table over its nodes. A family, the nodes and the stream
-- table, is refreshed in one transaction and in the order of the ids. What a node changes in its table is told to what reads it by a
-- temporary table: no one else reads it, and nothing of it is left.

-- The stream table that a node is refreshed with; of a stream table itself, its own id.
create or replace function tide.stream_family(id int) returns int
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic select id - (id - 1) % 100; end;

-- The nodes of a stream table, in the order of their refreshes.
create or replace function tide.stream_node_plans(id int) returns setof tide.stream_plan
language sql stable set search_path = pg_catalog, pg_temp
begin atomic select p.* from tide.stream_plan p where p.family = id and p.stream_id <> id order by p.stream_id; end;

-- What a node is refreshed by: the line of its stream table, with another number and another table. It has no pipeline.
create or replace function tide.stream_node_line(line tide.stream, id int) returns tide.stream
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    line.stream_id := id;
    line.relation := format('tide_stream.n_%s', id)::regclass;
    line.pipeline := null;
    line.outbox_id := null;
    return line;
end $$;

-- Tables as a plan names them: nodes, which had no table when it was made, by their numbers below zero.
create or replace function tide.stream_table_oids(numbers jsonb) returns oid[]
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(array_agg(case when n.number < 0 then to_regclass(format('tide_stream.n_%s', -n.number))::oid else n.number::oid end order by n.place), '{}')
      from (select v.value::bigint as number, v.place from jsonb_array_elements_text(numbers) with ordinality v (value, place)) n;
end;

-- Judges and keeps a node: the next refresh fills it.
create or replace function tide.stream_keep_node(line tide.stream, node jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    id   int := (node ->> 'number')::int;
    view regclass;
begin
    if id is null or tide.stream_family(id) <> line.stream_id or id = line.stream_id then
        raise exception 'stream table "%" has no node %', line.name, coalesce(id::text, 'NULL') using errcode = 'insufficient_privilege';
    end if;
    view := tide.stream_view(format('q_%s', id), node ->> 'query');
    perform tide.stream_judge(id, view, '{}');
    perform tide.stream_check_columns(line.name, view);
    execute format('create table tide_stream.n_%1$s with (fillfactor = 80) as select * from tide_stream.q_%1$s with no data', id);
    execute format('create view tide_stream.d_n%1$s as select 0::bigint as "__w", n.* from tide_stream.n_%1$s n', id);
    perform tide.stream_keep_plan(tide.stream_node_line(line, id), node - 'query');
end $$;

-- The statement that is kept for a change of these sources. Of a stream table with nodes, the strategies of its nodes and its own, as if
-- each change of a source changed each node that reads it; null if one of them is not known.
create or replace function tide.stream_kept(id int, changed oid[]) returns tide.stream_statement
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    plan     tide.stream_plan;
    kept     tide.stream_statement;
    steps    text[] := '{}';
    has_node boolean := false;
begin
    for plan in select p.* from tide.stream_plan p where p.family = id order by p.stream_id = id, p.stream_id loop
        has_node := has_node or plan.stream_id <> id;
        if plan.reads && changed or not has_node then
            select * into kept from tide.stream_statement s
             where s.stream_id = plan.stream_id
               and s.sources = case when has_node then array(select c from unnest(changed) c where c = any (plan.reads) order by c) else changed end;
            if not found then
                return null;
            end if;
            steps := steps || case when kept.strategy <> all (steps) then kept.strategy end;
            changed := changed || to_regclass(format('tide_stream.n_%s', plan.stream_id))::oid;
        end if;
    end loop;
    kept.strategy := array_to_string(steps, ' + ');
    return kept;
end $$;

-- Raises what makes an incremental refresh a whole one.
create or replace function tide.stream_require_sound(done tide.stream_done) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if done.unsound then
        raise data_exception using message = 'a sum is NaN or infinite, or a count is below zero';
    elsif done.gone <> done.updated + done.deleted or done.came <> done.updated + done.inserted then
        raise data_exception using message = 'the table did not hold the rows that were to be changed';
    end if;
end $$;

-- Writes what the changes change: in the nodes, and then in the stream table.
create or replace function tide.stream_follow(line tide.stream, plan tide.stream_plan, choice tide.stream_choice) returns tide.stream_done
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    nodes tide.stream_plan[] := array(select n from tide.stream_node_plans(line.stream_id) n);
    node  tide.stream_plan;
    done  tide.stream_done;
begin
    if cardinality(nodes) = 0 then
        return tide.stream_differential(line, plan, choice);
    end if;
    foreach node in array nodes loop
        if node.reads && choice.changed then
            choice := tide.stream_node_follow(tide.stream_node_line(line, node.stream_id), node, choice);
        end if;
    end loop;
    done := tide.stream_step(line, plan, choice);
    foreach node in array nodes loop
        if tide.stream_node_changed(node.stream_id) is not null then
            execute format('drop table %s', tide.stream_node_changed(node.stream_id));
        end if;
    end loop;
    return done;
end $$;

-- Where the net change of a node is told; null if it is not.
create or replace function tide.stream_node_changed(id int) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select t.name from (select format('pg_temp.tide_changed_%s', id) as name) t where to_regclass(t.name) is not null;
end;

-- One node. What it changes is a change more for what reads it.
create or replace function tide.stream_node_follow(line tide.stream, node tide.stream_plan, choice tide.stream_choice) returns tide.stream_choice
language plpgsql set search_path = pg_catalog, pg_temp set default_statistics_target = 10 as $$
declare
    done tide.stream_done;
begin
    execute format('create temporary table tide_changed_%1$s on commit drop as select * from tide_stream.d_n%1$s with no data', node.stream_id);
    done := tide.stream_step(line, node, choice);
    perform tide.stream_require_sound(done);
    if done.gone + done.came > 0 then
        execute format('analyze pg_temp.tide_changed_%s', node.stream_id);
        choice.changed := choice.changed || line.relation::oid;
        choice.deltas := choice.deltas || format('d_n%1$s as not materialized (select * from pg_temp.tide_changed_%1$s)', node.stream_id);
    end if;
    return choice;
end $$;

-- Writes what the changes of what it reads change in one table: by the statement that is kept for them, or computed as a whole.
create or replace function tide.stream_step(line tide.stream, plan tide.stream_plan, choice tide.stream_choice) returns tide.stream_done
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    mine oid[] := array(select c from unnest(choice.changed) c where c = any (plan.reads) order by c);
    kept tide.stream_statement;
begin
    if cardinality(mine) = 0 then
        return row(0, 0, 0, 0, 0, false)::tide.stream_done;
    end if;
    select * into kept from tide.stream_statement s where s.stream_id = line.stream_id and s.sources = mine;
    if coalesce(kept.strategy, 'full') = 'full' then
        return tide.stream_full(line, plan);
    end if;
    choice.number := kept.number;
    return tide.stream_differential(line, plan, choice);
end $$;

-- Computes all nodes as a whole.
create or replace function tide.stream_nodes_fill(line tide.stream) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    node tide.stream_plan;
    done tide.stream_done;
begin
    for node in select n.* from tide.stream_node_plans(line.stream_id) n loop
        done := tide.stream_full(tide.stream_node_line(line, node.stream_id), node);
        perform tide.stream_require_sound(done);
        if done.gone + done.came > 0 then
            execute format('analyze tide_stream.n_%s', node.stream_id);
        end if;
    end loop;
end $$;
