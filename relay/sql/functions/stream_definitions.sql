-- What stream tables are made of: what they read, and the script that makes one again.

-- Beneath each stream table what it reads. What stands in the tree already is not repeated below a second one that reads it.
create or replace function tide.dependency_tree() returns table (
    tree_line text, node text, node_type text, depth int, status text, refresh_mode text
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    line    record;
    states  jsonb := (select jsonb_object_agg(t.stream_id, to_jsonb(t)) from tide.stream_tables() t);
    tee     text := chr(9500) || repeat(chr(9472), 2) || ' ';
    corner  text := chr(9492) || repeat(chr(9472), 2) || ' ';
    bar     text := chr(9474) || '   ';
    -- What is still to be shown, the next one last.
    todo    oid[] := array(select s.relation::oid from tide.stream s
                            where not exists (select from tide.stream_source r where r.source = s.relation) order by s.name desc);
    indents text[] := array_fill(''::text, array[cardinality(todo)]);
    arms    text[] := indents;
    seen    oid[] := '{}';
    beneath text;
    reads   oid[];
    last    int;
begin
    while cardinality(todo) > 0 loop
        last := cardinality(todo);
        select s.stream_id, s.name into line from tide.stream s where s.relation = todo[last];
        node_type := case when found then 'stream_table' else 'source_table' end;
        node := coalesce(line.name, todo[last]::regclass::text);
        depth := length(indents[last] || arms[last]) / 4;
        tree_line := indents[last] || arms[last] || node
                     || case when not found then ' [src]' when todo[last] = any (seen) then ' (see above)' else '' end;
        status := states -> line.stream_id::text ->> 'status';
        refresh_mode := states -> line.stream_id::text ->> 'refresh_mode';
        return next;
        reads := array(select r.source from tide.stream_tables_read(to_regclass(format('tide_stream.q_%s', line.stream_id))) r
                        where node_type = 'stream_table' and todo[last] <> all (seen) order by r.source::regclass::text desc);
        beneath := indents[last] || case arms[last] when '' then '' when corner then '    ' else bar end;
        seen := seen || todo[last];
        todo := todo[:last - 1] || reads;
        indents := indents[:last - 1] || array_fill(beneath, array[cardinality(reads)]);
        arms := arms[:last - 1] || array(select case n when 1 then corner else tee end from generate_subscripts(reads, 1) n);
    end loop;
end $$;
comment on function tide.dependency_tree is 'The stream tables that no other one reads, and beneath each what it reads.';

-- The query as PostgreSQL has it: every table with its schema, under the name that it has now.
create or replace function tide.export_definition(name text) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    line   tide.stream := tide.find_stream(name);
    script text;
begin
    select E'begin;\nselect ' || string_agg(format('set_config(%L, %L, true)', s.key, regexp_replace(s.value, ', pg_temp$', '')), E',\n       '
                                            order by s.key)
      into script from jsonb_each_text(line.settings) s;
    script := script || format(E';\nselect tide.create_stream_table(%L, %s,\n    schedule => %L, refresh_mode => %L, tier => %L, initialize => %L,\n    append_only => %L, diamond_consistency => %L, refresh_group => %L);\n',
        line.name, quote_literal(E'\n' || rtrim(pg_get_viewdef(format('tide_stream.q_%s', line.stream_id)::regclass), ';') || E'\n'),
        line.schedule, line.refresh_mode, line.tier, not line.suspended, line.append_only, line.diamond_consistency, line.refresh_group);
    script := script || coalesce(
        (select string_agg(case when c.oid is null then pg_get_indexdef(i.indexrelid)
                                else format('alter table %s add constraint %I %s', line.relation, c.conname, pg_get_constraintdef(c.oid)) end
                           || E';\n', '' order by i.indexrelid)
           from pg_index i join pg_class x on x.oid = i.indexrelid
           left join pg_constraint c on c.conindid = i.indexrelid and c.conrelid = i.indrelid and c.contype in ('p', 'u', 'x')
          where i.indrelid = line.relation and x.relname not like E'tide\\_stream\\_%'), '');
    script := script || coalesce((select format(E'select tide.stream_outbox_enable(%L, %L, %s);\n', line.name, o.name, o.retention_hours)
                                    from tide.outbox o where o.outbox_id = line.outbox_id), '');
    return script || coalesce(format(E'comment on table %s is %L;\n', line.relation, obj_description(line.relation, 'pg_class')), '') || E'commit;\n';
end $$;
comment on function tide.export_definition is
    'A script that makes a stream table again: its settings, its query, its indexes and its comment. Not its rights, nor the tables that it reads.';
