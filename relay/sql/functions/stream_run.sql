-- Running what a refresh is: by changes, or as a whole.

-- Has a statement of ours run as a refresh: with the settings of the creation, and as the one that may write the table.
--
-- A cursor reads and plans it by our search_path, and runs it by that of the creation: triggers of the table look names up by it.
create or replace function tide.stream_run(line tide.stream, statement text, frontier pg_snapshot default null) returns tide.stream_done
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    run  refcursor;
    done tide.stream_done;
begin
    perform set_config('tide.refreshing', line.relation::oid::text, true);
    perform set_config('plan_cache_mode', 'auto', true);
    if tide.stream_is_foreign(line.relation) then
        done := tide.stream_run_as_owner(line.relation, statement, line.settings);
        perform set_config('tide.refreshing', '', true);
        return done;
    end if;
    perform set_config(s.key, s.value, true) from jsonb_each_text(line.settings - 'search_path') s;
    perform set_config('search_path', 'pg_catalog, tide_stream, pg_temp', true);
    open run for execute statement using frontier;
    perform set_config('search_path', line.settings ->> 'search_path', true);
    fetch run into done;
    close run;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    perform set_config('tide.refreshing', '', true);
    return done;
end $$;

-- What is counted when all is written. gone and came are there for what else has to know them.
create or replace function tide.stream_counted(parts text[], unsound text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
begin atomic
    select format('%s select (select coalesce(sum(__times), 0) from gone), (select coalesce(sum(__times), 0) from came),
                   (select count(*) from inserted_), (select count(*) from updated_), (select count(*) from deleted_), %s',
                  array_to_string(array_remove(parts, null), ', '), unsound);
end;

-- Computes the whole result, and writes what differs. With a plan, the state of aggregates is computed too.
create or replace function tide.stream_full(line tide.stream, plan tide.stream_plan) returns tide.stream_done
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    names  text := (select string_agg(format('%I', n), ', ') from unnest(tide.stream_key_names(line, null)) n);
    before text;
    -- Over its nodes, if a plan says how to fill them.
    source text := format('tide_stream.%s_%s', case when plan.stream_id is not null and to_regclass(format('tide_stream.r_%s', line.stream_id)) is not null
                                                    then 'r' else 'q' end, line.stream_id);
    by_path boolean := line.always_reason is not null or tide.stream_path_reason(source::regclass) is not null;
    done   tide.stream_done;
begin
    if tide.stream_is_foreign(line.relation) and (by_path or plan.kind is distinct from 'state') then
        source := tide.stream_computed(line);
    elsif by_path then
        -- Functions that the query calls look names up as the session did that created it. Nothing of ours is looked up so.
        before := format('create temporary table tide_full_%1$s on commit drop as select * from tide_stream.q_%1$s', line.stream_id);
        perform set_config(s.key, s.value, true) from jsonb_each_text(line.settings - 'search_path') s;
        perform set_config('search_path', line.settings ->> 'search_path', true);
        execute before;
        perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        before := null;
        source := format('pg_temp.tide_full_%s', line.stream_id);
    elsif plan.kind = 'state' then
        before := tide.stream_state_text(line.stream_id, plan, null);
        source := 'new_';
    end if;
    done := tide.stream_run(line, 'with ' || tide.stream_counted(array[before, tide.stream_write_text(line, plan, format(
        'select %1$s, 1::bigint as "__w" from %2$s union all select %1$s, -1 from %3$s', names, source, line.relation)), tide.stream_told_text(line)],
        'false'));
    if starts_with(source, 'pg_temp.') then
        execute format('drop table %s', source);
    end if;
    return done;
end $$;

-- Writes what the changes of these sources change.
create or replace function tide.stream_differential(line tide.stream, plan tide.stream_plan, choice tide.stream_choice) returns tide.stream_done
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    return tide.stream_run(line, format('with %s, %s', array_to_string(choice.deltas, ', '), tide.stream_part(line, plan, choice, 'w_' || choice.number)),
                           choice.frontier);
end $$;

-- What follows the net changes in the statement of an incremental refresh. Kept: the text of the view that says what they change.
create or replace function tide.stream_change_text(line tide.stream, plan tide.stream_plan, kept text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    names text := (select string_agg(format('%I', n), ', ') from unnest(tide.stream_key_names(line, null)) n);
begin
    if plan.kind = 'rows' then
        return tide.stream_counted(array[tide.stream_write_text(line, plan, kept), tide.stream_told_text(line)], 'false');
    end if;
    return tide.stream_counted(
        array[tide.stream_state_text(line.stream_id, plan, kept),
              tide.stream_write_text(line, plan, format('select %1$s, 1::bigint as "__w" from new_ union all select %1$s, -1 from old_', names)),
              tide.stream_told_text(line)],
        tide.stream_unsound_text(line.stream_id, plan.groups));
end $$;

-- A part of the statement of an incremental refresh: d_<source>, a net change (see tide.stream_delta_kind), or w_<number>,
-- what follows them. Making it takes longer than running it, so it is kept; and made again where anything that it names is called
-- otherwise: columns, of which the capture tells, the table, and what the views name, which PostgreSQL follows.
create or replace function tide.stream_part(line tide.stream, plan tide.stream_plan, choice tide.stream_choice, name text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    kept     text := case when starts_with(name, 'w_') then tide.stream_kept_text(format('w_%s_%s', line.stream_id, choice.number)) end;
    basis    text := md5(concat_ws(' ', choice.capture, line.relation, line.outbox_id, tide.stream_is_immediate(line.stream_id), kept,
                                   case when kept is not null and plan.kind = 'state' then tide.stream_kept_text(format('o_%s', line.stream_id)) end));
    made     text := (select t.text from tide.stream_text t
                       where t.stream_id = line.stream_id and t.name = stream_part.name and t.rests_on = basis);
begin
    if made is null then
        made := case when starts_with(name, 'a_') then tide.stream_appended_text(line.stream_id, substr(name, 3)::oid)
                     when kept is null then tide.stream_net_text(line.stream_id, substr(name, 3)::oid, plan.exact, starts_with(name, 'm_'))
                     else tide.stream_change_text(line, plan, kept) end;
        insert into tide.stream_text as t (stream_id, name, rests_on, text) values (line.stream_id, stream_part.name, basis, made)
            on conflict on constraint stream_text_pkey do update set rests_on = excluded.rests_on, text = excluded.text;
    end if;
    return made;
end $$;

-- Computes the whole result by the plan, and without it if the plan has a wrong idea of what is unique.
create or replace function tide.stream_full_checked(line tide.stream, plan tide.stream_plan) returns tide.stream_done
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    done tide.stream_done;
begin
    if plan.kind is not null then
        begin
            perform tide.stream_nodes_fill(line);
            done := tide.stream_full(line, plan);
            if done.gone = done.updated + done.deleted and done.came = done.updated + done.inserted then
                update tide.stream_plan p set filled = true where p.stream_id = line.stream_id and not p.filled;
                return done;
            end if;
            raise data_exception;
        exception when data_exception or undefined_function then
            null;
        end;
    end if;
    update tide.stream_plan p set filled = false where p.stream_id = line.stream_id and p.filled
       and (p.kind = 'state' or exists (select from tide.stream_node_plans(line.stream_id)));
    return tide.stream_full(line, null);
end $$;
