-- Routed tables: a table in the form that Debezium's outbox event router reads, whose rows are messages.
--
-- One trigger, for INSERT: what happens to a row later is not published, and costs its writers nothing. It is like
-- those of table_outbox_changes.sql: it counts only on a table that tide.table_route lists, and calls nothing that a user
-- may have made: columns are turned into text by the output functions of their types, which only a superuser can make.
--
-- Columns are known by their names. Their numbers would survive a renaming, but they are others in a partition, and in a
-- database that was dumped and restored: the wrong column would be published without notice. A name that is gone is reported.

-- What is not JSON is a string: a message that looks odd is better than a statement that fails, or than no message.
create or replace function tide.table_route_payload(value text) returns jsonb
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    return value::jsonb;
exception when invalid_text_representation or untranslatable_character or program_limit_exceeded or statement_too_complex then
    return to_jsonb(value);
end $$;

create or replace function tide.table_route_has(source oid, name text) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select exists (select from pg_attribute a where a.attrelid = source and a.attname = name and a.attnum > 0 and not a.attisdropped);
end;

-- A query with %s in the place of the relation: payload, key and headers of each row.
create or replace function tide.table_route_query(route tide.table_route) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    names    text[] := route.columns;
    lost     text := (select c.name from unnest(names) c (name) where not tide.table_route_has(route.source, c.name) limit 1);
    as_text  text := 'case when num_nulls(%1$I) = 0 then format(''%%s'', %1$I) end';
    payload  text;
    headers  text;
begin
    if lost is not null then
        raise exception 'table "%" has lost its column "%"', tide.table_name(route.source), lost using
            errcode = 'object_not_in_prerequisite_state',
            hint = format('It is routed to an outbox. Say which columns it has now: select tide.table_outbox_route(%1$L, columns => ...); '
                          'or let it be routed no more: select tide.table_outbox_unroute(%1$L);', route.source::regclass::text);
    end if;
    -- Not a cast to text: the column may have got another type since, and its owner may have made one for that.
    select case when a.atttypid = 'jsonb'::regtype then format('%I', names[5])
                else format('tide.table_route_payload(' || as_text || ')', names[5]) end into payload
      from pg_attribute a where a.attrelid = route.source and a.attname = names[5];
    -- A column that was dropped gives no header.
    select string_agg(format('%L, ', h.name) || format(as_text, h.of), ', ' order by h.place) into headers
      from unnest(array['id', 'aggregate_type', 'type'] || route.header_names,
                  names[1:2] || names[4] || route.header_columns) with ordinality h (name, of, place)
     where tide.table_route_has(route.source, h.of);
    return replace(format('select %s as payload, %s as key, jsonb_strip_nulls(jsonb_build_object(%s)) as headers from ', payload,
                          format(as_text, names[3]), headers), '%', '%%') || '%s';
end $$;

create or replace function tide.table_route_of(relation oid) returns tide.table_route
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select t from tide.table_route t where t.source in (relation, pg_partition_root(relation)) limit 1;
end;

-- Publishes rows that a table has, in the order of the arrays.
create or replace function tide.table_route_append(source oid, payloads jsonb[], keys text[], headers jsonb[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box     tide.outbox;
    largest bigint;
begin
    select o.* into box from tide.table_route t join tide.outbox o on o.outbox_id = t.outbox_id
     where t.source = table_route_append.source;
    if not found then
        raise exception 'table "%" is not routed', tide.table_name(source) using
            errcode = 'object_not_in_prerequisite_state',
            hint = format('Was it a partition, or restored from elsewhere? Route it: select tide.table_outbox_route(%1$L); '
                          'or take the trigger away: select tide.table_outbox_unroute(%1$L);', source::regclass::text);
    elsif not box.enabled then
        raise exception 'table "%" takes no rows: its outbox "%" is disabled', tide.table_name(source), box.name using
            errcode = 'object_not_in_prerequisite_state',
            hint = format('Enable it: select tide.outbox_enable(%L); or let the table be routed no more: tide.table_outbox_unroute.', box.name);
    end if;
    if exists (select from unnest(payloads, headers) m (payload, headers)
                where tide.far_too_large(box.max_payload_bytes, m.payload, m.headers)) then
        perform tide.table_outbox_refuse_size(tide.table_name(source), box, null);
    end if;
    select max(coalesce(octet_length(m.payload::text), 4) + octet_length(m.headers::text) + coalesce(octet_length(m.key), 0)) into largest
      from unnest(payloads, keys, headers) m (payload, key, headers);
    if largest > box.max_payload_bytes then
        perform tide.table_outbox_refuse_size(tide.table_name(source), box, largest);
    end if;
    perform tide.outbox_append(box, payloads, keys, headers);
end $$;

-- Whatever the session of the writer is set to, a value has one form. Rows are published a thousand, or a MiB, at a time.
create or replace function tide.table_routed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set datestyle = 'ISO, MDY' set timezone = 'UTC'
    set intervalstyle = 'iso_8601' set extra_float_digits = 1 set bytea_output = 'hex' set lc_monetary = 'C' as $$
declare
    route    tide.table_route := tide.table_route_of(tg_relid);
    row      record;
    payloads jsonb[] := '{}';
    keys     text[] := '{}';
    headers  jsonb[] := '{}';
    filled   bigint := 0;
begin
    if route.source is null then
        if current_setting('transaction_isolation') <> 'read committed' then
            raise exception 'table "%" was routed after this transaction began', tide.table_name(tg_relid) using
                errcode = 'serialization_failure', hint = 'Nothing was inserted. Run the transaction again.';
        end if;
        perform tide.table_route_append(tg_relid, null, null, null);
    end if;
    if (select tide.is_own_trigger(g) from pg_trigger g where g.tgrelid = tg_relid and g.tgname = tg_name) is not true then
        perform tide.require_own_trigger(tg_relid, tg_name);
    end if;
    for row in execute format(tide.table_route_query(route), 'inserted') loop
        payloads := array_append(payloads, row.payload);
        keys := array_append(keys, row.key);
        headers := array_append(headers, row.headers);
        filled := filled + coalesce(octet_length(row.payload::text), 4);
        if filled > 1048576 or cardinality(keys) >= 1000 then
            perform tide.table_route_append(route.source, payloads, keys, headers);
            payloads := '{}';
            keys := '{}';
            headers := '{}';
            filled := 0;
        end if;
    end loop;
    if cardinality(keys) > 0 then
        perform tide.table_route_append(route.source, payloads, keys, headers);
    end if;
    return null;
end $$;

-- Setting up -------------------------------------------------------------------------------------------------------------
create or replace function tide.table_route_triggers(source oid) returns table (relation regclass, state "char")
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select t.relid, case when tide.is_own_trigger(g) then g.tgenabled when g.oid is not null then '?' end
      from (select source::regclass as relid union select p.relid from pg_partition_tree(source) p) t
      left join pg_trigger g on g.tgrelid = t.relid and g.tgname = 'tide_outbox_route' and g.tgfoid = 'tide.table_routed'::regproc;
end;

-- The column that a route needs, or why it cannot be that one.
create or replace function tide.table_route_column(source oid, role text, name text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    found_column record;
begin
    select a.attnotnull, a.attgenerated, a.atttypid into found_column
      from pg_attribute a
     where a.attrelid = source and a.attname = table_route_column.name and a.attnum > 0 and not a.attisdropped;
    if not found then
        raise exception 'table "%" has no column %', tide.table_name(source), coalesce(quote_literal(name), 'NULL') using
            errcode = 'undefined_column',
            hint = format('Say which column is the %s: select tide.table_outbox_route(%L, columns => ''{"%s": "..."}'');',
                          role, source::regclass::text, role);
    elsif role in ('id', 'aggregate_type') and not found_column.attnotnull then
        raise exception 'column "%" of table "%", the %, may be null', name, tide.table_name(source), role using
            errcode = 'invalid_table_definition',
            hint = format('No consumer could tell what such a row is: alter table %s alter column %I set not null;', source::regclass, name);
    elsif role = 'payload' and found_column.atttypid not in ('jsonb'::regtype, 'json'::regtype, 'text'::regtype, 'varchar'::regtype) then
        raise exception 'column "%" of table "%", the payload, is %', name, tide.table_name(source),
            format_type(found_column.atttypid, null) using
            errcode = 'datatype_mismatch', hint = 'A payload is jsonb; json, text and varchar will do.';
    elsif found_column.attgenerated = 'v' then
        raise exception 'column "%" of table "%" is virtual', name, tide.table_name(source) using
            errcode = 'feature_not_supported', hint = 'Triggers do not see what is in it. Make it a stored one, or an ordinary one.';
    end if;
    return name;
end $$;

-- Lists the table, if its trigger is there: a role with the right to create that may route it.
create or replace function tide.table_route_register(
    source oid, outbox text, columns jsonb, headers jsonb, retention_hours int, max_payload_bytes int
) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    wanted       tide.table_route;
    listed       tide.table_route;
    named        jsonb := '{"id": "id", "aggregate_type": "aggregatetype", "aggregate_id": "aggregateid", "type": "type", "payload": "payload"}';
    wrong        text;
    box_name     text;
begin
    perform tide.table_outbox_tables(source);
    if exists (select from tide.table_route_triggers(source) t where coalesce(t.state, '?') = '?') then
        raise exception 'table "%" has no trigger yet', tide.table_name(source) using
            errcode = 'object_not_in_prerequisite_state', hint = 'Call tide.table_outbox_route, which creates it.';
    elsif exists (select from tide.table_outbox t where t.source = table_route_register.source) then
        raise exception 'table "%" is an outbox of another mode already', tide.table_name(source) using
            errcode = 'duplicate_object',
            hint = format('To change that, call first: select tide.table_outbox_disable(%L);', source::regclass::text);
    elsif jsonb_typeof(columns) <> 'object' or jsonb_typeof(headers) <> 'object' then
        raise exception 'columns and headers must be JSON objects' using
            errcode = 'invalid_parameter_value', hint = 'For example columns => ''{"id": "event_id"}'', headers => ''{"traceparent": "trace"}''.';
    end if;
    select k.key into wrong from jsonb_object_keys(columns) k (key) where not named ? k.key limit 1;
    if found then
        raise exception 'there is no "%" among the columns of a routed table', wrong using
            errcode = 'invalid_parameter_value', hint = 'There are id, aggregate_type, aggregate_id, type and payload. Others can be headers.';
    end if;
    select k.key into wrong from jsonb_object_keys(headers) k (key) where k.key in ('id', 'aggregate_type', 'type', '') limit 1;
    if found then
        raise exception 'a column cannot be the header "%"', wrong using
            errcode = 'invalid_parameter_value', hint = 'The headers id, aggregate_type and type are made of the columns of those names.';
    end if;
    named := named || columns;
    wanted.columns := array(select tide.table_route_column(source, r.role, named ->> r.role)
                              from unnest(array['id', 'aggregate_type', 'aggregate_id', 'type', 'payload']) with ordinality r (role, place)
                             order by r.place);
    select array_agg(h.key order by h.key), array_agg(tide.table_route_column(source, 'header', h.value) order by h.key)
      into wanted.header_names, wanted.header_columns from jsonb_each_text(headers) h (key, value);
    select * into listed from tide.table_route t where t.source = table_route_register.source;
    if found then
        select o.name into box_name from tide.outbox o where o.outbox_id = listed.outbox_id;
        if table_route_register.outbox <> box_name then
            raise exception 'table "%" is routed to outbox "%" already', tide.table_name(source), box_name using
                errcode = 'duplicate_object',
                hint = format('To change that, call first: select tide.table_outbox_unroute(%L);', source::regclass::text);
        end if;
    else
        box_name := coalesce(table_route_register.outbox, tide.table_name(source));
    end if;
    if not tide.outbox_create_if_not_exists(
        box_name, coalesce(retention_hours, tide.setting_number('outbox_retention_hours')), max_payload_bytes)
    then
        update tide.outbox o set retention_hours = table_route_register.retention_hours
         where o.name = box_name and o.retention_hours <> table_route_register.retention_hours;
    end if;
    insert into tide.table_route as t (source, source_name, outbox_id, columns, header_names, header_columns)
    values (source, tide.table_name(source), (tide.find_message_outbox(box_name)).outbox_id, wanted.columns,
            coalesce(wanted.header_names, '{}'), coalesce(wanted.header_columns, '{}'))
    on conflict on constraint table_route_pkey do update
        set source_name = excluded.source_name, columns = excluded.columns, header_names = excluded.header_names,
            header_columns = excluded.header_columns;
    return box_name;
end $$;

-- The query for the rows that are there, for whom tells that it is about to publish them; null if they were published.
create or replace function tide.table_route_existing(source oid) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    route tide.table_route;
begin
    update tide.table_route t set existing_at = now()
     where t.source = table_route_existing.source and t.existing_at is null returning t.* into route;
    return case when found then tide.table_route_query(route) end;
end $$;

create or replace function tide.table_route_forget(source oid, drop_outbox boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box_name text;
begin
    if exists (select from tide.table_route_triggers(source) t where t.state is not null) then
        raise exception 'table "%" has the trigger of a routed table', tide.table_name(source) using
            errcode = 'object_not_in_prerequisite_state', hint = 'Call tide.table_outbox_unroute, which removes it.';
    end if;
    delete from tide.table_route t using tide.outbox o
     where t.source = table_route_forget.source and o.outbox_id = t.outbox_id
    returning o.name into box_name;
    if drop_outbox and box_name is not null then
        perform tide.outbox_drop(box_name);
    end if;
end $$;

-- With the rights of the caller, as tide.table_outbox_enable. CREATE TRIGGER locks out writers: what is in the table when
-- it has its lock, and what the trigger sees later, are all rows, each once.
create or replace function tide.table_outbox_route(
    source regclass, outbox text default null, columns jsonb default '{}', headers jsonb default '{}',
    existing boolean default false, existing_order text default null, retention_hours int default null,
    max_payload_bytes int default 1048576
) returns text
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '900ms' set row_security = off
    set datestyle = 'ISO, MDY' set timezone = 'UTC' set intervalstyle = 'iso_8601' set extra_float_digits = 1
    set bytea_output = 'hex' set lc_monetary = 'C' as $$
declare
    relation regclass;
    owner    name;
    box_name text;
    rows     text;
    row      record;
    payloads jsonb[] := '{}';
    keys     text[] := '{}';
    heads    jsonb[] := '{}';
begin
    if existing and current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception 'the rows of table "%" cannot be published in a transaction that is %', tide.table_name(source),
            upper(current_setting('transaction_isolation')) using
            errcode = 'invalid_transaction_state', hint = 'It may not see all of them: begin isolation level read committed.';
    end if;
    for relation in select r.relation from tide.table_outbox_tables(source) r (relation) order by 1 loop
        select pg_get_userbyid(c.relowner) into owner from pg_class c where c.oid = relation and not pg_has_role(c.relowner, 'usage');
        if found then
            raise exception 'table % belongs to role "%"', relation, owner using
                errcode = 'insufficient_privilege', hint = 'Only the owner of a table, or a member of that role, can route it.';
        end if;
    end loop;
    for relation in select t.relation from tide.table_route_triggers(source) t order by t.relation <> source, t.relation::oid loop
        execute format('create or replace trigger tide_outbox_route after insert on %s referencing new table as inserted '
                       'for each statement execute function tide.table_routed()', relation);
    end loop;
    box_name := tide.table_route_register(source, outbox, columns, headers, retention_hours, max_payload_bytes);
    rows := case when existing then tide.table_route_existing(source) end;
    if rows is not null then
        -- Without a column to go by: the order in which the rows lie in the table.
        rows := format(rows, source) || ' order by '
             || case when existing_order is null then 'tableoid, ctid' else format('%I', existing_order) end;
        for row in execute rows loop
            payloads := array_append(payloads, row.payload);
            keys := array_append(keys, row.key);
            heads := array_append(heads, row.headers);
            if cardinality(keys) >= 1000 then
                perform tide.table_route_append(source, payloads, keys, heads);
                payloads := '{}';
                keys := '{}';
                heads := '{}';
            end if;
        end loop;
        if cardinality(keys) > 0 then
            perform tide.table_route_append(source, payloads, keys, heads);
        end if;
    end if;
    return box_name;
end $$;
comment on function tide.table_outbox_route is
    'Makes a table in the form of Debezium''s outbox an outbox: each row that is inserted from now on is a message. Returns the outbox''s name.';

create or replace function tide.table_outbox_unroute(source regclass, drop_outbox boolean default false) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '900ms' as $$
declare
    relation regclass;
begin
    for relation in
        select t.relation from tide.table_route_triggers(source) t where t.state is not null order by t.relation <> source, t.relation::oid
    loop
        execute format('drop trigger tide_outbox_route on %s', relation);
    end loop;
    perform tide.table_route_forget(source, drop_outbox);
end $$;
comment on function tide.table_outbox_unroute is
    'New rows of the table are messages no more. What was published is still delivered, unless the outbox is dropped with all its messages.';

create or replace function tide.table_route_problem(route tide.table_route) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    wrong text;
begin
    if not exists (select from pg_class c where c.oid = route.source) then
        return format('the table was dropped: select tide.table_outbox_unroute(%s);', route.source::oid);
    end if;
    select string_agg(format('the trigger of %s is %s', t.relation, case when t.state is null then 'missing' when t.state = '?' then 'another' else 'disabled' end), ', '
                      order by t.relation <> route.source, t.relation::oid) into wrong
      from tide.table_route_triggers(route.source) t where t.state is null or t.state not in ('O', 'A');
    if wrong is not null then
        return format('%s: route it again with the same columns and headers: select tide.table_outbox_route(%L, ...);', wrong, route.source::text);
    elsif exists (select from unnest(route.columns) c (name) where not tide.table_route_has(route.source, c.name)) then
        return format('a column of its route is gone or renamed, and it takes no rows: select tide.table_outbox_route(%L, columns => ...);',
                      route.source::text);
    end if;
    return null;
end $$;

create or replace function tide.table_outbox_status(source regclass default null)
returns table (
    source_table text, outbox text, mode text, outbox_enabled boolean, last_id bigint, tables int, intact boolean, problem text
)
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(tide.table_name(t.source), t.source_name), o.name, t.mode, o.enabled, tide.outbox_last_id(o.outbox_id),
           (select greatest(count(*), 1)::int from pg_partition_tree(t.source) p), t.problem is null, t.problem
      from (select e.source, e.source_name, e.outbox_id, e.mode, tide.table_outbox_problem(e.source, e.mode) as problem
              from tide.table_outbox e
             union all
            select r.source, r.source_name, r.outbox_id, 'routed', tide.table_route_problem(r) from tide.table_route r) t
      join tide.outbox o on o.outbox_id = t.outbox_id
     where table_outbox_status.source is null or t.source = table_outbox_status.source
     order by 1;
end;
comment on function tide.table_outbox_status is
    'A row for each table that is an outbox. tables: itself and its partitions. problem: what is wrong and what to do, or null.';

-- A table is an outbox in one way, and its outbox stays.
create or replace function tide.keep_table_route() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    sources text;
begin
    if tg_table_name = 'table_outbox' then
        if exists (select from tide.table_route t where t.source = new.source) then
            raise exception 'table "%" is routed to an outbox already', tide.table_name(new.source) using
                errcode = 'duplicate_object',
                hint = format('To change that, call first: select tide.table_outbox_unroute(%L);', new.source::text);
        end if;
        return new;
    end if;
    delete from tide.table_route t where t.outbox_id = old.outbox_id and not exists (select from pg_class c where c.oid = t.source);
    select string_agg(t.source::text, ', ' order by t.source::text) into sources from tide.table_route t where t.outbox_id = old.outbox_id;
    if sources is not null then
        raise exception 'outbox "%" is that of routed tables: %', old.name, sources using
            errcode = 'dependent_objects_still_exist', hint = 'Route them no more first: select tide.table_outbox_unroute(...);';
    end if;
    return old;
end $$;
create or replace trigger keep_table_route before delete on tide.outbox for each row execute function tide.keep_table_route();
create or replace trigger keep_table_route before insert on tide.table_outbox for each row execute function tide.keep_table_route();
