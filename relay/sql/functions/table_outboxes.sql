-- Making a table an outbox, and looking after it. What its triggers do: table_outbox_changes.sql.

-- The table and all its partitions, which get the triggers; or why it cannot be an outbox.
create or replace function tide.table_outbox_tables(source oid) returns setof regclass
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    found_table record;
    refusal     text;
    advice      text := 'Only ordinary and partitioned tables can be outboxes. Publish from the tables behind it, or call tide.outbox_publish.';
begin
    select c.relkind, c.relpersistence, c.relispartition, n.nspname,
           exists (select from pg_inherits i where i.inhrelid = c.oid) as inherits,
           exists (select from pg_inherits i where i.inhparent = c.oid) as inherited
      into found_table
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.oid = source;
    if not found then
        raise exception 'there is no table with oid %', coalesce(source::text, 'NULL') using
            errcode = 'undefined_table', hint = 'Name the table: select tide.table_outbox_enable(''schema.table'');';
    elsif found_table.relkind not in ('r', 'p') then
        refusal := case found_table.relkind when 'v' then 'a view' when 'm' then 'a materialized view' when 'f' then 'a foreign table'
                                            when 'S' then 'a sequence' else 'no table' end;
    elsif found_table.nspname in ('pg_catalog', 'information_schema', 'pg_toast') then
        refusal := 'a table of the system';
    elsif found_table.nspname = 'tide' then
        refusal := 'a table of tide-relay itself';
    elsif found_table.relpersistence = 't' then
        refusal := 'a temporary table';
    elsif found_table.relispartition then
        refusal := format('a partition of "%s"', tide.table_name(pg_partition_root(source)));
        advice := format('Statements on the whole table would be missed. Make that one the outbox: select tide.table_outbox_enable(%L);',
                         pg_partition_root(source)::text);
    elsif found_table.relkind = 'r' and (found_table.inherits or found_table.inherited) then
        refusal := 'part of a tree of inheritance';
        advice := 'Statements on one of its tables change rows of others. Use declarative partitioning.';
    end if;
    if refusal is null and tide.is_stream_table(source) then
        refusal := 'a stream table';
        advice := format('Have each of its refreshes publish what it changed: select tide.stream_outbox_enable(%L);', source::regclass::text);
    end if;
    if refusal is null and exists (select from pg_partition_tree(source) p join pg_class c on c.oid = p.relid where c.relkind = 'f') then
        refusal := 'partitioned, with a foreign table as a partition';
    end if;
    if refusal is not null then
        raise exception '"%" cannot be an outbox: it is %', tide.table_name(source), refusal using
            errcode = 'wrong_object_type', hint = advice;
    end if;
    return query select source::regclass union select p.relid from pg_partition_tree(source) p;
end $$;

-- The triggers that each of the tables needs; a partitioned one a fifth. State ?: one of this name that is not as we make it.
create or replace function tide.table_outbox_triggers(source oid)
returns table (relation regclass, name text, event text, state "char")
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select t.relid, e.name, e.event, case when tide.is_own_trigger(g) then g.tgenabled when g.oid is not null then '?' end
      from (select source::regclass as relid union select p.relid from pg_partition_tree(source) p) t
      join pg_class c on c.oid = t.relid
     cross join (values
        ('tide_outbox_insert', 'after insert on %s referencing new table as inserted'),
        ('tide_outbox_update', 'after update on %s referencing old table as deleted new table as inserted'),
        ('tide_outbox_delete', 'after delete on %s referencing old table as deleted'),
        ('tide_outbox_truncate', 'after truncate on %s'),
        ('tide_outbox_truncating', 'before truncate on %s')) e (name, event)
      left join pg_trigger g on g.tgrelid = t.relid and g.tgname = e.name
                            and g.tgfoid = 'tide.table_outbox_changed'::regproc
     where c.relkind = 'p' or e.name <> 'tide_outbox_truncating';
end;

-- Lists the table, if all its triggers are there: a role with the right to create those may make it an outbox.
create or replace function tide.table_outbox_register(source oid, outbox text, mode text, retention_hours int, max_payload_bytes int)
returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    listed      record;
    box_name    text := table_outbox_register.outbox;
    occupant    text;
begin
    perform tide.table_outbox_tables(source);
    if exists (select from tide.table_outbox_triggers(source) t where coalesce(t.state, '?') = '?') then
        raise exception 'table "%" has no triggers yet', tide.table_name(source) using
            errcode = 'object_not_in_prerequisite_state', hint = 'Call tide.table_outbox_enable, which creates them.';
    elsif mode is null or mode not in ('statement', 'row') then
        raise exception '% is no mode of a table outbox', coalesce(quote_literal(mode), 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'Use ''statement'', one message for each statement, or ''row'', one for each row.';
    elsif mode = 'row' and tide.table_key(source) is null then
        raise exception 'table "%" has no key', tide.table_name(source) using
            errcode = 'object_not_in_prerequisite_state',
            hint = 'A message for each row needs a primary key, or a replica identity with an index. Add one, or use mode => ''statement''.';
    end if;
    select t.mode, o.name into listed
      from tide.table_outbox t join tide.outbox o on o.outbox_id = t.outbox_id where t.source = table_outbox_register.source;
    if found then
        if listed.mode <> mode or listed.name <> coalesce(box_name, listed.name) then
            raise exception 'table "%" is an outbox already: "%", with mode %', tide.table_name(source), listed.name, listed.mode using
                errcode = 'duplicate_object',
                hint = format('To change that, call first: select tide.table_outbox_disable(%L);', source::regclass::text);
        end if;
        box_name := listed.name;
    elsif box_name is null then
        box_name := tide.table_name(source);
        if box_name !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$' then
            raise exception 'the name of table "%" is not valid for an outbox', box_name using
                errcode = 'invalid_name',
                hint = format('Give one of up to 100 letters, digits, "_", "-" and ".": '
                              'select tide.table_outbox_enable(%L, outbox => ...);', source::regclass::text);
        end if;
        select tide.table_name(t.source) into occupant
          from tide.table_outbox t join tide.outbox o on o.outbox_id = t.outbox_id
          join pg_class c on c.oid = t.source
         where o.name = box_name limit 1;
        if found then
            raise exception 'outbox "%" is that of table "%"', box_name, occupant using
                errcode = 'duplicate_object',
                hint = format('Choose another, or say that both are to share it: select tide.table_outbox_enable(%L, outbox => ...);',
                              source::regclass::text);
        end if;
    end if;
    if not tide.outbox_create_if_not_exists(
        box_name, coalesce(retention_hours, tide.setting_number('outbox_retention_hours')), max_payload_bytes)
    then
        update tide.outbox o set retention_hours = table_outbox_register.retention_hours
         where o.name = box_name and o.retention_hours <> table_outbox_register.retention_hours;
    end if;
    insert into tide.table_outbox as t (source, source_name, outbox_id, mode)
    values (source, tide.table_name(source), (tide.find_message_outbox(box_name)).outbox_id, mode)
    on conflict on constraint table_outbox_pkey do update set source_name = excluded.source_name;
    return box_name;
end $$;

create or replace function tide.table_outbox_forget(source oid, drop_outbox boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box_name text;
begin
    if exists (select from tide.table_outbox_triggers(source) t where t.state is not null) then
        raise exception 'table "%" has the triggers of an outbox', tide.table_name(source) using
            errcode = 'object_not_in_prerequisite_state', hint = 'Call tide.table_outbox_disable, which removes them.';
    end if;
    delete from tide.table_outbox t using tide.outbox o
     where t.source = table_outbox_forget.source and o.outbox_id = t.outbox_id
    returning o.name into box_name;
    if drop_outbox and box_name is not null then
        perform tide.outbox_drop(box_name);
    end if;
end $$;

-- With the rights of the caller, who must own the table, and may call the functions of this section.
--
-- It locks the table against writers, and waits for those that are open, no longer than lock_timeout: a little less than
-- deadlock_timeout, a second, so that a transaction of theirs is never the one that PostgreSQL ends.
create or replace function tide.table_outbox_enable(
    source regclass, outbox text default null, mode text default 'statement', retention_hours int default null,
    max_payload_bytes int default 1048576
) returns text
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '900ms' as $$
declare
    relation regclass;
    owner    name;
    wanted   record;
begin
    for relation in select r.relation from tide.table_outbox_tables(source) r (relation) loop
        select pg_get_userbyid(c.relowner) into owner from pg_class c where c.oid = relation and not pg_has_role(c.relowner, 'usage');
        if found then
            raise exception 'table % belongs to role "%"', relation, owner using
                errcode = 'insufficient_privilege', hint = 'Only the owner of a table, or a member of that role, can make it an outbox.';
        end if;
    end loop;
    -- Parents first, and always in the same order: two sessions do not wait for each other. A trigger that was disabled is
    -- enabled by being replaced.
    for wanted in
        select t.relation, t.name, t.event from tide.table_outbox_triggers(source) t order by t.relation <> source, t.relation::oid, t.name
    loop
        execute format('create or replace trigger %I ' || wanted.event || ' for each statement execute function tide.table_outbox_changed()',
                       wanted.name, wanted.relation);
    end loop;
    return tide.table_outbox_register(source, outbox, mode, retention_hours, max_payload_bytes);
end $$;
comment on function tide.table_outbox_enable is
    'Makes a table an outbox, or repairs one that is; returns the name of the outbox. What statements change from now on is published.';

create or replace function tide.table_outbox_disable(source regclass, drop_outbox boolean default false) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '900ms' as $$
declare
    present record;
begin
    for present in
        select t.relation, t.name from tide.table_outbox_triggers(source) t
         where t.state is not null order by t.relation <> source, t.relation::oid, t.name
    loop
        execute format('drop trigger %I on %s', present.name, present.relation);
    end loop;
    perform tide.table_outbox_forget(source, drop_outbox);
end $$;
comment on function tide.table_outbox_disable is
    'Lets a table be no outbox. What it has published is still delivered, unless the outbox is dropped with all its messages.';

create or replace function tide.table_outbox_problem(source oid, mode text) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    found_table record;
    wrong       text;
begin
    select c.relkind, exists (select from pg_inherits i where i.inhrelid = c.oid or i.inhparent = c.oid and c.relkind = 'r') as related
      into found_table from pg_class c where c.oid = source;
    if not found then
        return format('the table was dropped: select tide.table_outbox_disable(%s);', source);
    end if;
    select string_agg(format('trigger %s of %s is %s', t.name, t.relation, case when t.state is null then 'missing' when t.state = '?' then 'another' else 'disabled' end),
                      ', ' order by t.relation <> source::regclass, t.relation::oid, t.name) into wrong
      from tide.table_outbox_triggers(source) t where t.state is null or t.state not in ('O', 'A');
    if wrong is not null then
        return format('%s: select tide.table_outbox_enable(%L, mode => %L);', wrong, source::regclass::text, mode);
    elsif found_table.related then
        return 'the table is now a partition, or part of a tree of inheritance: statements on others of them are missed';
    elsif mode = 'row' and tide.table_key(source) is null then
        return 'the table has lost its primary key, and refuses changes: add one';
    end if;
    return null;
end $$;

-- Dropping an outbox under a table would leave a table that refuses every change.
create or replace function tide.keep_table_outbox() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    sources text;
begin
    delete from tide.table_outbox t where t.outbox_id = old.outbox_id and not exists (select from pg_class c where c.oid = t.source);
    select string_agg(t.source::text, ', ' order by t.source::text) into sources
      from tide.table_outbox t where t.outbox_id = old.outbox_id;
    if sources is not null then
        raise exception 'outbox "%" is that of tables: %', old.name, sources using
            errcode = 'dependent_objects_still_exist', hint = 'Let them be no outboxes first: select tide.table_outbox_disable(...);';
    end if;
    select string_agg(s.name, ', ' order by s.name) into sources from tide.stream s where s.outbox_id = old.outbox_id;
    if sources is not null then
        raise exception 'outbox "%" is that of stream tables: %', old.name, sources using
            errcode = 'dependent_objects_still_exist', hint = 'Let them have no outbox first: select tide.stream_outbox_disable(...);';
    end if;
    return old;
end $$;
create or replace trigger keep_table_outbox before delete on tide.outbox for each row execute function tide.keep_table_outbox();
