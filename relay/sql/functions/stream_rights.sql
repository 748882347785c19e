-- Stream tables of roles that do not own the schema tide. Their queries run with their rights and no others.
--
-- tide_run.run_<number> is a SECURITY DEFINER function that its creator makes, and that the owner of tide alone may call: it runs what a
-- refresh is, and cannot leave its role as after SET ROLE. Its text names the query, so that no one but its owner says what is run: the
-- owner of the table, of the function and of the query are one. Functions of ours that run with our rights never run code of a query:
-- they read its stored tree.

-- The role with whose rights a stream table is refreshed: that of the table.
create or replace function tide.stream_owner(relation regclass) returns oid
language sql stable set search_path = pg_catalog, pg_temp
begin atomic select c.relowner from pg_class c where c.oid = relation; end;

-- Whether it was made by another role than the owner of the schema tide: also if its table is gone, or given away, since.
create or replace function tide.stream_is_foreign(relation regclass) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce((select s.runner is not null from tide.stream s where s.relation = stream_is_foreign.relation),
                    -- A hidden node is ours.
                    not exists (select from pg_class c where c.oid = stream_is_foreign.relation and c.relnamespace = to_regnamespace('tide_stream')));
end;

-- The text of that function: what it runs is ours, and names the query, so that its owner has agreed to it. A cursor reads and plans a
-- statement by the fixed path, and runs it by that of the creation. Without settings: a statement that returns nothing.
create or replace function tide.stream_runner_text(query_text text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select format(E'\n-- %s\n', md5(query_text)) || 'declare
    run  refcursor;
    done tide.stream_done;
begin
    if settings is null then
        execute statement;
        return null;
    end if;
    perform set_config(s.key, s.value, true) from jsonb_each_text(settings - ''search_path'') s;
    open run for execute statement;
    perform set_config(''search_path'', settings ->> ''search_path'', true);
    fetch run into done;
    close run;
    return done;
end '
$$;

-- Makes it, with the rights of the caller, under a name of its own.
create or replace function tide.stream_make_runner(query_text text) returns name
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    runner name := 'run_' || replace(gen_random_uuid()::text, '-', '');
begin
    execute format('create function tide_run.%I(statement text, settings jsonb) returns tide.stream_done
                    language plpgsql security definer set search_path = pg_catalog, tide_stream, pg_temp as %L', runner, tide.stream_runner_text(query_text));
    execute format('revoke all on function tide_run.%I(text, jsonb) from public', runner);
    execute format('grant execute on function tide_run.%I(text, jsonb) to %I', runner,
                   (select pg_get_userbyid(n.nspowner) from pg_namespace n where n.nspname = 'tide'));
    return runner;
end $$;

-- Raises 42501 unless the function is what the owner of the table has made of this query; null: of any.
create or replace function tide.stream_check_runner(relation regclass, runner name, query_text text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    owner  oid := tide.stream_owner(relation);
    reason text;
begin
    select case when p.oid is null then 'the function for that is missing'
                when owner is null then 'its table was dropped'
                when owner = (select n.nspowner from pg_namespace n where n.nspname = 'tide') then 'it was made by another role'
                when p.proowner <> owner then format('the function for that belongs to %s', p.proowner::regrole)
                when not p.prosecdef or p.proconfig is distinct from array['search_path=pg_catalog, tide_stream, pg_temp']
                     or substr(p.prosrc, 37) <> substr(tide.stream_runner_text(''), 37)
                     or query_text is not null and p.prosrc <> tide.stream_runner_text(query_text)
                then 'the function for that was changed' end
      into reason
      from (select) one left join pg_proc p on p.oid = to_regprocedure(format('tide_run.%I(text, jsonb)', runner));
    if reason is not null then
        raise exception 'the query of stream table "%" cannot be run with the rights of its owner %: %', relation, owner::regrole, reason using
            errcode = 'insufficient_privilege',
            hint = format('Give the table and the function tide_run.%I to one role, or have the owner give the query again: '
                          'select tide.alter_stream_table(%L, query => ...).', runner, relation);
    end if;
end $$;

-- The name of that function of a stream table.
create or replace function tide.stream_runner(relation regclass) returns name
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic select s.runner from tide.stream s where s.relation = stream_runner.relation; end;

-- Runs a statement of ours as the owner of a stream table.
create or replace function tide.stream_run_as_owner(relation regclass, statement text, settings jsonb default null) returns tide.stream_done
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    runner name := tide.stream_runner(relation);
    done   tide.stream_done;
begin
    perform tide.stream_check_runner(relation, runner, null);
    execute format('select (r).* from tide_run.%I($1, $2) r', runner) into done using statement, settings;
    return done;
end $$;

-- DDL on what belongs to the owner of a stream table.
create or replace function tide.stream_execute(relation regclass, statement text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if tide.stream_is_foreign(relation) then
        perform tide.stream_run_as_owner(relation, statement);
    else
        execute statement;
    end if;
end $$;

-- Whether the owner of a stream table may read what its changes tell: all of the rows of its sources. Null: yes.
create or replace function tide.stream_unreadable(line tide.stream) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select format('its owner may not read %s itself', min(s.source::regclass::text))
      from tide.stream_source s
     where s.stream_id = line.stream_id and tide.stream_is_foreign(line.relation)
       and not has_table_privilege(tide.stream_owner(line.relation), s.source, 'select')
    having count(*) > 0;
end;

-- Gives the owner of a stream table rights to a table of ours.
create or replace function tide.stream_lend(line tide.stream, privileges text, name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if tide.stream_is_foreign(line.relation) then
        perform tide.stream_check_runner(line.relation, line.runner, null);
        execute format('grant %s on %s to %s', privileges, name, tide.stream_owner(line.relation)::regrole);
    end if;
end $$;

-- Computes a query as its owner, into a temporary table: its name.
create or replace function tide.stream_computed(line tide.stream) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    target text := format('pg_temp.tide_full_%s', line.stream_id);
begin
    execute format('create temporary table tide_full_%1$s on commit drop as select * from tide_stream.q_%1$s with no data', line.stream_id);
    perform tide.stream_lend(line, 'select, insert', target);
    perform tide.stream_run_as_owner(line.relation, format(
        'with computed_ as (insert into %s select * from (%s) q returning 1) select count(*), 0, 0, 0, 0, false from computed_',
        target, rtrim(pg_get_viewdef(format('tide_stream.q_%s', line.stream_id)::regclass), ';')), line.settings);
    return target;
end $$;

-- A trigger on a source: by us, or with the rights of the owner of a stream table that reads it. Its function can be named by that role
-- for this statement alone: or it could have other tables write as if they were the source.
create or replace function tide.stream_make_trigger(source oid, part regclass, statement text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    reader regclass;
    function_name text := substring(statement from 'execute function ([a-z0-9_.]+)');
begin
    if not has_table_privilege(part, 'trigger') then
        select line.relation into reader
          from tide.stream_source s join tide.stream line using (stream_id)
         where s.source = stream_make_trigger.source and tide.stream_is_foreign(line.relation)
           and has_table_privilege(tide.stream_owner(line.relation), part, 'trigger')
         order by line.stream_id limit 1;
    end if;
    if reader is null then
        execute statement;
        return;
    end if;
    execute format('grant execute on function %s() to %s', function_name, tide.stream_owner(reader)::regrole);
    perform tide.stream_run_as_owner(reader, statement);
    execute format('revoke execute on function %s() from %s', function_name, tide.stream_owner(reader)::regrole);
end $$;

-- A trigger that calls our common function is dropped by the owner of its table alone. One that stays notes changes that no one reads.
create or replace function tide.stream_drop_trigger(name name, part regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('drop trigger %I on %s', name, part);
exception when insufficient_privilege then
    raise notice 'trigger % stays on %: its owner can drop it', name, part;
end $$;

-- Raises unless the caller may change a stream table: an admin or operator, who may call this function; its owner, or a member of that.
create or replace function tide.stream_require_mine(line tide.stream, others regprocedure) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if not (has_function_privilege(tide.caller()::name, others, 'execute')
            or coalesce(pg_has_role(tide.caller()::name, tide.stream_owner(line.relation), 'usage'), false)) then
        raise exception 'stream table "%" belongs to %', line.name, tide.stream_owner(line.relation)::regrole using
            errcode = 'insufficient_privilege', hint = 'Only its owner and those that operate tide-relay change it.';
    end if;
end $$;

-- Drops the table of a stream table, and what runs its query. What no longer can be dropped so is left to its owner.
create or replace function tide.stream_drop_table(relation regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    runner name := tide.stream_runner(relation);
begin
    if runner is null then
        execute format('drop table %s', relation);
        return;
    end if;
    begin
        perform tide.stream_check_runner(relation, runner, null);
    exception when insufficient_privilege then
        raise notice 'table % stays: %', relation, sqlerrm;
        return;
    end;
    perform tide.stream_run_as_owner(relation, format('drop table %s', relation));
    -- It drops itself.
    execute format('select tide_run.%I(%L, null)', runner, format('drop function tide_run.%I(text, jsonb)', runner));
end $$;

-- Creating one ---------------------------------------------------------------------------------------------------------

-- With the rights of the caller: the table, and the function that runs its query. The query is read as a view that goes with it.
create or replace function tide.stream_create_foreign(
    name text, query text, schedule text, refresh_mode text, initialize boolean, diamond_consistency text, append_only boolean,
    pooler_compatibility_mode boolean, tier text, refresh_group text, path text
) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    target text := tide.stream_target(name, path);
    given  record;
    runner name;
begin
    if (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        raise exception 'a refresh would run with the rights of %, which is a superuser', current_user using
            errcode = 'insufficient_privilege', hint = 'Become the role first that is to own the stream table: set role ...;';
    end if;
    select * into given from tide.stream_given(target, path, query);
    execute format('create table %s as select * from pg_temp.tide_query with no data', target);
    runner := tide.stream_make_runner(given.query_text);
    execute format('create trigger tide_stream_guard before insert or update or delete or truncate on %s
                    for each statement execute function tide.stream_guard()', target);
    drop view pg_temp.tide_query;
    perform tide.stream_enter(target::regclass, runner, given.query, given.query_text, schedule, refresh_mode, initialize, diamond_consistency, append_only,
                              pooler_compatibility_mode, tier, refresh_group, path);
end $$;

-- Reads a query as the caller: into the view pg_temp.tide_query. Raises what the caller may not read.
create or replace function tide.stream_given(target text, path text, inout query text, out query_text text)
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    query := tide.stream_define('pg_temp.tide_query', target, query, path);
    perform tide.stream_check_columns(target, 'pg_temp.tide_query'::regclass);
    execute 'select from pg_temp.tide_query limit 0';
    query_text := rtrim(pg_get_viewdef('pg_temp.tide_query'::regclass), ';');
end $$;

-- With our rights. Nothing of the query is run or planned here: a view is made of its text, which its owner has agreed to.
create or replace function tide.stream_enter(
    relation regclass, runner name, query text, query_text text, schedule text, refresh_mode text, initialize boolean, diamond_consistency text,
    append_only boolean, pooler_compatibility_mode boolean, tier text, refresh_group text, path text
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    next_id int := nextval(pg_get_serial_sequence('tide.stream', 'stream_id'));
    view    regclass;
    target  text := (select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = relation);
begin
    perform tide.stream_check_runner(relation, runner, query_text);
    perform tide.stream_check_usage(relation);
    view := tide.stream_view(format('q_%s', next_id), query_text);
    perform tide.stream_check_foreign(relation, view);
    perform tide.stream_insert(next_id, target, query, schedule, refresh_mode, initialize, diamond_consistency, append_only,
                               pooler_compatibility_mode, tier, refresh_group, path, runner);
end $$;

-- The owner of tide has to name the table: that of the sources says PostgreSQL.
create or replace function tide.stream_check_usage(relation regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    schema name := (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = relation);
begin
    if not has_schema_privilege(schema, 'usage') then
        raise exception 'the owner of the schema tide may not name what is in schema %', schema using
            errcode = 'insufficient_privilege', hint = format('Have its owner call: grant usage on schema %I to %I;', schema, current_user);
    end if;
end $$;

-- Raises what is not taken of other roles. Values of types that are not PostgreSQL's run code of their owners where they are compared,
-- converted or made; triggers are made with the rights of the owner.
create or replace function tide.stream_check_foreign(relation regclass, view regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    owner oid := tide.stream_owner(relation);
    wrong record;
begin
    select a.attname, a.atttypid::regtype as type into wrong from pg_attribute a
     where a.attrelid = view and a.attnum > 0 and a.atttypid >= 16384 order by a.attnum limit 1;
    if found then
        raise exception 'column "%" of stream table "%" is of type %, which is not of PostgreSQL itself', wrong.attname, relation, wrong.type using
            errcode = 'insufficient_privilege',
            hint = 'Only the owner of the schema tide creates such stream tables. Cast it in the query, for example to text.';
    elsif tide.stream_columns_of(relation) <> tide.stream_columns_of(view)
          or not exists (select from pg_class c where c.oid = relation and c.relkind = 'r' and c.relpersistence = 'p' and not c.relispartition)
          or exists (select from tide.stream_tables_read(view) t where t.source = relation) then
        raise exception 'table "%" is not made of the query of a stream table', relation using errcode = 'insufficient_privilege';
    end if;
    select t.source::regclass as source into wrong from tide.stream_tables_read(view) t
     where t.captured and not has_table_privilege(owner, t.source, 'trigger');
    if found then
        raise exception '% may not create triggers on %, so its changes are not captured', owner::regrole, wrong.source using
            errcode = 'insufficient_privilege', hint = format('Have its owner call: grant trigger on %s to %s;', wrong.source, owner::regrole);
    end if;
end $$;

-- Gives a stream table of another role another query: the first part with the rights of the caller.
create or replace function tide.stream_requery_foreign(line_name text, relation regclass, query text, path text) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    before name := tide.stream_runner(relation);
    given  record;
begin
    select * into given from tide.stream_given(line_name, path, query);
    perform tide.stream_add_columns(relation, 'pg_temp.tide_query'::regclass);
    drop view pg_temp.tide_query;
    perform tide.stream_reenter(relation, tide.stream_make_runner(given.query_text), given.query, given.query_text, path);
    begin
        execute format('drop function if exists tide_run.%I(text, jsonb)', before);
    exception when insufficient_privilege then
        raise notice 'function tide_run.% is of no use any more, and its owner can drop it', before;
    end;
end $$;

create or replace function tide.stream_reenter(relation regclass, runner name, query text, query_text text, path text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line      tide.stream;
    view      regclass;
    probe     regclass;
    same_text text;
begin
    select * into strict line from tide.stream s where s.relation = stream_reenter.relation;
    view := format('tide_stream.q_%s', line.stream_id);
    perform tide.stream_check_runner(relation, runner, query_text);
    -- It is one statement, and reads nothing that is not taken: then it may take the place of the present one.
    probe := tide.stream_view(format('probe_%s', line.stream_id), query_text);
    perform tide.stream_check_foreign(relation, probe);
    execute format('drop view %s', probe);
    update tide.stream_state s set frontier = s.frontier where s.stream_id = line.stream_id;
    update tide.stream s set runner = stream_reenter.runner where s.stream_id = line.stream_id;
    same_text := pg_get_viewdef(view);
    begin
        execute format('create or replace view %s as %s', view, query_text);
    exception when invalid_table_definition then
        perform tide.stream_refuse_columns(line.name, sqlerrm);
    end;
    perform tide.stream_take_query(line, query, same_text, path);
end $$;

-- The table of a stream table, for those who may not see more of it.
create or replace function tide.stream_relation(name text) returns regclass
language sql stable security definer set search_path = pg_catalog, pg_temp as $$ select (tide.find_stream(name)).relation $$;

create or replace function tide.grant_streams(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.grant_rights('streams', role);
    execute format('grant usage on schema tide_stream to %I', role);
    execute format('grant usage, create on schema tide_run to %I', role);
end $$;
comment on function tide.grant_streams is
    'Lets a role create stream tables of what it may read, which are refreshed with its rights; and change and drop those that it owns.';
