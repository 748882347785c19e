-- What a refresh does: nothing, write what the changes change, or compute it all; and why.

-- Own: whether this transaction itself has changed a source.
create or replace function tide.stream_choose(line tide.stream, state tide.stream_state, plan tide.stream_plan, own boolean) returns tide.stream_choice
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    choice tide.stream_choice;
    noted  boolean := tide.stream_noted(line.stream_id, state.frontier);
    why    text;
begin
    choice.own := own;
    choice.capture := tide.stream_sources_now(line.stream_id);
    select w.sources, w.waiting, w.both_signs, w.arrays into choice.sources, choice.waiting, choice.both_signs, choice.arrays
      from tide.stream_waiting(line.stream_id, state.frontier) w;
    why := tide.stream_why(line, state, choice.capture, noted or choice.sources is not null);
    if why is null or why = 'its writers do not maintain it yet' then
        choice.action := 'NO_DATA';
        return choice;
    end if;
    choice.action := 'FULL';
    choice.strategy := 'full';
    choice.planned := plan.kind is not null and plan.facts = tide.stream_facts(line.stream_id);
    choice.reason := case
        when why <> 'its sources changed' then why
        when own then 'its transaction had changed its sources'
        when tide.stream_why_full(line) <> '' then tide.stream_why_full(line)
        when not choice.planned then 'its sources are not what they were when its query was analysed'
        when not plan.filled then 'the state of its aggregates has to be computed first'
        when noted then 'a source was truncated, or changed in another way that no row tells' end;
    return case when choice.reason is not null then choice else tide.stream_measure(line, state, plan, choice) end;
end $$;

-- Whether this transaction itself has changed a source, and may change more there.
create or replace function tide.stream_own(id int) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    source oid;
    own    boolean := false;
begin
    for source in select b.source from tide.stream_source s join tide.stream_buffer b using (source)
                   where s.stream_id = id and pg_current_xact_id_if_assigned() is not null and not tide.stream_in_turn(s.source)
    loop
        execute format('select exists (select from tide_stream.b_%1$s where __xid = pg_current_xact_id_if_assigned())
                               or exists (select from tide_stream.m_%1$s where __xid = pg_current_xact_id_if_assigned())', source) into own;
        exit when own;
    end loop;
    return own;
end $$;

-- Looks at the changes themselves. Large ones go into temporary tables with statistics, without which plans explode; small ones stay
-- part of the statement.
create or replace function tide.stream_measure(line tide.stream, state tide.stream_state, plan tide.stream_plan, choice tide.stream_choice)
returns tide.stream_choice
language plpgsql set search_path = pg_catalog, pg_temp set default_statistics_target = 10 as $$
declare
    source   oid;
    changed  oid[] := '{}';
    kept     tide.stream_statement;
    net      text;
    net_rows bigint;
begin
    choice.frontier := state.frontier;
    choice.source_rows := 0;
    choice.large := (select sum(w) from unnest(choice.waiting) w) > 300 or choice.waiting is not null and tide.stream_is_foreign(line.relation);
    if choice.large then
        perform tide.stream_deltas_drop(line.stream_id);
    end if;
    for place in 1 .. coalesce(cardinality(choice.sources), 0) loop
        source := choice.sources[place];
        net := tide.stream_part(line, plan, choice, tide.stream_delta_kind(source, choice.arrays[place]) || source);
        net_rows := choice.waiting[place];
        if choice.large then
            execute format('create temporary table tide_delta_%s on commit drop as %s', source, replace(net, '$1', quote_literal(state.frontier)));
            get diagnostics net_rows = row_count;
            execute format('analyze pg_temp.tide_delta_%s', source);
            perform tide.stream_lend(line, 'select', format('pg_temp.tide_delta_%s', source));
            net := format('select * from pg_temp.tide_delta_%s', source);
        elsif choice.both_signs[place] then
            execute format('select count(*) from (%s) n', net) into net_rows using state.frontier;
        end if;
        if net_rows > 0 then
            changed := changed || source;
            choice.deltas := choice.deltas || format('d_%s as %s (%s)', source, case when choice.large then 'not materialized' else 'materialized' end, net);
            choice.source_rows := choice.source_rows + net_rows;
        end if;
    end loop;
    if cardinality(changed) = 0 then
        choice.action := 'NO_DATA';
        return choice;
    end if;
    kept := tide.stream_kept(line.stream_id, changed);
    choice.changed := changed;
    choice.missing := case when kept.stream_id is null then changed end;
    choice.reason := case
        when kept.stream_id is null then 'how these sources change it together has not been analysed yet'
        when kept.strategy = 'full' then coalesce(kept.reason, 'no better way is proven')
        when line.refresh_mode = 'AUTO' then tide.stream_dearer(line.stream_id, kept.strategy, choice.source_rows) end;
    if choice.reason is null then
        choice.action := 'DIFFERENTIAL';
        choice.strategy := kept.strategy;
        choice.number := kept.number;
        choice.reason := 'its sources changed';
    end if;
    return choice;
end $$;

-- Of which kind the part is that tells the net change of a source: a_, of its rows by their keys, m_, also of arrays, or d_.
create or replace function tide.stream_delta_kind(source oid, arrays boolean) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return case when (select b.append_only from tide.stream_buffer b where b.source = stream_delta_kind.source) then 'a_' when arrays then 'm_' else 'd_' end;
end $$;

create or replace function tide.stream_deltas_drop(id int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    source oid;
begin
    for source in select s.source from tide.stream_source s
                   where s.stream_id = id and to_regclass(format('pg_temp.tide_delta_%s', s.source)) is not null
    loop
        execute format('drop table pg_temp.tide_delta_%s', source);
    end loop;
end $$;

-- How many rows a table has, as of its statistics; null: unknown.
create or replace function tide.stream_rows_of(relation oid) returns float8
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select case when bool_and(c.reltuples >= 0) then sum(c.reltuples::float8) end
      from tide.stream_captured(relation) t (part) join pg_class c on c.oid = t.part where c.relkind = 'r';
end;

-- Why mode AUTO computes it all although this many changed rows could be followed; null if it does not.
--
-- Refreshes of the past say what each way takes. What following takes is a floor and a slope, where the same strategy has followed numbers of
-- rows that differ, and else what it took for about as many. A thousandth of the rows is never worth computing it all, whatever an old
-- average says; and after twenty times the other way is tried.
create or replace function tide.stream_dearer(id int, strategy text, changed_rows bigint) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    past     record;
    expected float8;
    whole    float8 := (select percentile_cont(0.5) within group (order by l.milliseconds)
                          from (select h.milliseconds from tide.stream_history h
                                 where h.stream_id = id and h.action = 'FULL' order by h.refresh_id desc limit 5) l);
    all_rows float8;
begin
    select count(*) filter (where r.place <= 20 and r.action = 'FULL') as wholes, count(*) filter (where r.followed) as known,
           regr_intercept(r.milliseconds, r.source_rows) filter (where r.followed) as base,
           regr_slope(r.milliseconds, r.source_rows) filter (where r.followed) as slope,
           count(*) filter (where r.followed and r.source_rows between changed_rows / 2 and changed_rows * 2) as similar,
           percentile_cont(0.5) within group (order by r.milliseconds)
               filter (where r.followed and r.source_rows between changed_rows / 2 and changed_rows * 2) as similar_ms
      into past
      from (select h.action, h.milliseconds, h.source_rows, row_number() over (order by h.refresh_id desc) as place,
                   h.action = 'DIFFERENTIAL' and h.strategy = stream_dearer.strategy
                   and h.source_rows between changed_rows / 10 and changed_rows * 10 as followed
              from tide.stream_history h where h.stream_id = id and h.action <> 'FAILED' order by h.refresh_id desc limit 100) r;
    expected := case when past.known >= 3 and past.base >= 0 and past.slope >= 0 then past.base + past.slope * changed_rows
                     when past.similar >= 3 then past.similar_ms end;
    if past.wholes = 20 or expected < 1.2 * whole or expected is null and changed_rows <= 300 then
        return null;
    end if;
    select case when bool_and(s.rows is not null) then sum(s.rows) end into all_rows
      from (select tide.stream_rows_of(s.source) as rows from tide.stream_source s where s.stream_id = id) s;
    return case
        when changed_rows < all_rows / 1000 then null
        when expected >= 1.2 * whole then
            format('%s changed rows were expected to take %s ms, and all %s ms', changed_rows, round(expected), round(whole))
        when changed_rows >= tide.setting_number('stream_differential_max_change_percent') / 100.0 * all_rows then format('%s of about %s rows of its sources changed', changed_rows, all_rows) end;
end $$;
