-- Tables as outboxes: what statements change is published in their own transactions, whichever role runs them.
--
-- Triggers for each statement hand over the rows as they were and as they are. Their function runs with the rights of
-- this schema's owner, so that writers need none here, and therefore
--   * believes no argument: a trigger counts only on a table that tide.table_outbox lists, and to its outbox alone. Who
--     may create a trigger on a table is PostgreSQL's to say, so a table is listed once its triggers are there;
--   * reads transition tables only if the trigger at hand names them: without them the names inserted and deleted are
--     those of relations of the writer's own, in pg_temp. A trigger counts only if it is exactly what we make;
--   * never calls what a user may have made. Turning a row into JSON calls the casts to json of its columns' types, and
--     the owner of a type can make such a cast: see tide.table_outbox_columns.
--
-- The two transition tables of an UPDATE hold the old and the new versions in the same order, a pair for each row, also
-- of a row that moves to another partition: the executor writes both at once. Pairs are found by their place.

create or replace function tide.table_name(source oid) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = source;
end;
comment on function tide.table_name is 'Schema and name, as messages and errors tell it: not quoted. Null if there is no such table.';

-- The primary key, else a replica identity: unique, never null, of the whole table. In PL/pgSQL, which keeps its plans:
-- this is asked for each statement.
create or replace function tide.table_key(source oid) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return (select array(select a.attname::text
                           from unnest(x.indkey) with ordinality k (attnum, number)
                           join pg_attribute a on a.attrelid = x.indrelid and a.attnum = k.attnum
                          where k.number <= x.indnkeyatts
                          order by k.number)
              from pg_index x
             where x.indrelid = source and (x.indisprimary or x.indisreplident)
             order by x.indisprimary desc
             limit 1);
end $$;

create or replace function tide.is_array(type pg_type) returns boolean
language sql immutable parallel safe
return type.typtype = 'b' and type.typelem <> 0 and type.typlen = -1;

-- How the columns are selected from a transition table, or null if all of them can be taken as they are.
--   * A type that a user made may have a cast to json, which the conversion would call with our rights. Only a superuser
--     can make casts of a superuser's type, so extensions keep theirs. Enums, ranges and base types of others are given
--     as text, and so is a composite type that has one inside; an array of them as an array of texts, a domain over an
--     array as one text.
--   * Virtual columns are null in transition tables. PostgreSQL lets them call built-in functions only.
create or replace function tide.table_outbox_columns(source oid) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    distrusted int2[];
begin
    -- Domains, arrays and composite types are taken apart until a type is reached that would be converted as a whole.
    with recursive inside as (
        select a.attnum, a.atttypid as type_id
          from pg_attribute a
         where a.attrelid = source and a.attnum > 0 and not a.attisdropped and a.atttypid >= 16384
        union
        select i.attnum, part.type_id
          from inside i
          join pg_type t on t.oid = i.type_id
         cross join lateral (
               select case when t.typtype = 'd' then t.typbasetype else t.typelem end
                where t.typtype = 'd' or tide.is_array(t)
               union all
               select a.atttypid from pg_attribute a
                where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
               ) part (type_id)
         where i.type_id >= 16384
    )
    select array_agg(distinct i.attnum) into distrusted
      from inside i
      join pg_type t on t.oid = i.type_id
      join pg_roles r on r.oid = t.typowner
     where i.type_id >= 16384 and t.typtype not in ('c', 'd') and not tide.is_array(t)
       and not r.rolsuper and r.rolname <> current_user;
    return (
        select string_agg(case
            when a.attgenerated = 'v' then
                format('(%s) as %I', (select pg_get_expr(e.adbin, e.adrelid) from pg_attrdef e
                                       where e.adrelid = source and e.adnum = a.attnum), a.attname)
            when a.attnum = any (distrusted) then
                format('case when num_nulls(%1$I) = 0 then format(''%%s'', %1$I)%2$s end as %1$I', a.attname,
                       case when (select tide.is_array(t) from pg_type t where t.oid = a.atttypid) then '::text[]' else '' end)
            else format('%I', a.attname) end, ', ' order by a.attnum)
          from pg_attribute a
         where a.attrelid = source and a.attnum > 0 and not a.attisdropped
        having bool_or(a.attgenerated = 'v' or a.attnum = any (distrusted)));
end $$;

-- Whether a trigger is exactly as tide.table_outbox_enable and tide.table_outbox_route make it: when it fires, for
-- statements, without a condition, columns or arguments, with these transition tables.
create or replace function tide.is_own_trigger(g pg_trigger) returns boolean
language sql stable
return g.tgqual is null and g.tgnargs = 0 and g.tgattr::text = '' and g.tgconstraint = 0
   and (g.tgname::text, g.tgtype::int, coalesce(g.tgoldtable, '')::text, coalesce(g.tgnewtable, '')::text) in (
        ('tide_outbox_insert', 4, '', 'inserted'), ('tide_outbox_update', 16, 'deleted', 'inserted'),
        ('tide_outbox_delete', 8, 'deleted', ''), ('tide_outbox_truncate', 32, '', ''), ('tide_outbox_truncating', 34, '', ''),
        ('tide_outbox_route', 4, '', 'inserted'));

create or replace function tide.require_own_trigger(source oid, name name) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    own boolean := (select tide.is_own_trigger(g) from pg_trigger g where g.tgrelid = source and g.tgname = name);
begin
    -- A snapshot that is older than the trigger does not show it.
    if own is null then
        perform tide.table_outbox_refuse_table(source);
    elsif not own then
        raise exception 'trigger "%" of table "%" looks like that of an outbox, but is not one that tide-relay has made', name,
            tide.table_name(source) using
            errcode = 'object_not_in_prerequisite_state',
            hint = format('Nothing was changed. Drop it: drop trigger %I on %s; or make the table an outbox, which replaces it: '
                          'tide.table_outbox_enable or tide.table_outbox_route.', name, source::regclass);
    end if;
end $$;

-- Publishing what a statement changed --------------------------------------------------------------------------------------
create or replace function tide.table_outbox_refuse_size(source text, box tide.outbox, size bigint) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception 'a row of table "%" makes a message of % bytes, the limit of outbox "%" is %', source,
        coalesce(size::text, 'more than ' || box.max_payload_bytes), box.name, box.max_payload_bytes using
        errcode = 'program_limit_exceeded',
        hint = format('The statement changed nothing. Raise the limit: update tide.outbox set max_payload_bytes = %s where name = %L; '
                      'or keep large data in another table.', least(coalesce(2 * size, 268435456), 268435456), box.name);
end $$;

create or replace function tide.table_outbox_refuse_table(source oid) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'table "%" became an outbox after this transaction began', tide.table_name(source) using
            errcode = 'serialization_failure', hint = 'Nothing was changed. Run the transaction again.';
    end if;
    raise exception 'table "%" has the triggers of an outbox, but is not one', tide.table_name(source) using
        errcode = 'object_not_in_prerequisite_state',
        hint = format('Was it a partition, or restored from elsewhere? Make it an outbox: select tide.table_outbox_enable(%1$L); '
                      'or take the triggers away: select tide.table_outbox_disable(%1$L);', source::regclass::text);
end $$;

-- One message for many rows. Pairs of an UPDATE have the same place in both arrays.
create or replace function tide.table_outbox_append_chunk(
    box tide.outbox, headers jsonb, olds jsonb[], news jsonb[], chunk jsonb
) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.outbox_append(
        box, array[jsonb_build_object('v', 1, 'op', headers -> 'op', 'inserted', to_jsonb(news), 'deleted', to_jsonb(olds)) || chunk],
        null, array[headers]);
end $$;

-- A message for each row. One whose key was changed is gone for those who go by the key, and another is there.
create or replace function tide.table_outbox_append_rows(
    box tide.outbox, headers jsonb, key_columns text[], olds jsonb[], news jsonb[]
) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    payloads   jsonb[];
    keys       text[];
    head       jsonb[];
    too_large  bigint;
begin
    with keyed as (
        select r.number, r.old_row, r.new_row, o.key as old_key, n.key as new_key
          from unnest(olds, news) with ordinality r (old_row, new_row, number)
         cross join lateral (select jsonb_object_agg(c.name, r.old_row -> c.name) as key
                               from unnest(key_columns) c (name) where r.old_row is not null) o
         cross join lateral (select jsonb_object_agg(c.name, r.new_row -> c.name) as key
                               from unnest(key_columns) c (name) where r.new_row is not null) n
    ), told as (
        select k.number, m.part, m.op, m.key, m.new_row, m.old_row
          from keyed k
         cross join lateral (
               select 1, headers ->> 'op', coalesce(k.new_key, k.old_key), k.new_row, k.old_row
                where k.old_key::text = k.new_key::text or k.old_key is null or k.new_key is null
               union all
               select 2, 'delete', k.old_key, null, k.old_row where k.old_key::text <> k.new_key::text
               union all
               select 3, 'insert', k.new_key, k.new_row, null where k.old_key::text <> k.new_key::text
               ) m (part, op, key, new_row, old_row)
    ), made as (
        select t.number, t.part,
               jsonb_build_object('v', 1, 'op', t.op, 'key', t.key, 'new', t.new_row, 'old', t.old_row) as payload,
               case when cardinality(key_columns) = 1 then t.key ->> key_columns[1]
                    else (select jsonb_agg(t.key -> c.name order by c.number)::text
                            from unnest(key_columns) with ordinality c (name, number)) end as key,
               headers || jsonb_build_object('op', t.op) as headers
          from told t
    )
    select array_agg(m.payload order by m.number, m.part), array_agg(m.key order by m.number, m.part),
           array_agg(m.headers order by m.number, m.part),
           max(octet_length(m.payload::text) + octet_length(m.headers::text) + octet_length(m.key))
      into payloads, keys, head, too_large
      from made m;
    if too_large > box.max_payload_bytes then
        perform tide.table_outbox_refuse_size(headers ->> 'table', box, too_large);
    end if;
    perform tide.outbox_append(box, payloads, keys, head);
end $$;

-- Whatever the session of the writer is set to, a value has one form.
create or replace function tide.table_outbox_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set datestyle = 'ISO, MDY' set timezone = 'UTC'
    set intervalstyle = 'iso_8601' set extra_float_digits = 1 set bytea_output = 'hex' set lc_monetary = 'C' as $$
declare
    found_source record;
    headers      jsonb;
    columns      text;
    key_columns  text[];
    new_rows     refcursor;
    old_rows     refcursor;
    new_row      jsonb;
    old_row      jsonb;
    new_size     bigint := 0;
    old_size     bigint := 0;
    news         jsonb[] := '{}';
    olds         jsonb[] := '{}';
    -- Bytes of the rows in hand, and how many there may be.
    filled       bigint := 0;
    room         bigint;
    waiting      int := 0;
    chunk        int := 0;
    statement    uuid;
begin
    if (select tide.is_own_trigger(g) from pg_trigger g where g.tgrelid = tg_relid and g.tgname = tg_name) is not true then
        perform tide.require_own_trigger(tg_relid, tg_name);
    end if;
    if tg_when = 'BEFORE' then
        -- Of TRUNCATE only. All BEFORE triggers of a statement fire before any AFTER trigger.
        insert into tide.truncating (xid, partition)
        select pg_current_xact_id(), p.relid
          from pg_partition_tree(tg_relid) p
          join pg_trigger g on g.tgrelid = p.relid and g.tgfoid = 'tide.table_outbox_changed'::regproc
                           and g.tgname = 'tide_outbox_truncate' and g.tgenabled in ('O', 'A')
         where p.relid <> tg_relid
        on conflict do nothing;
        return null;
    elsif tg_op = 'TRUNCATE' then
        delete from tide.truncating t where t.xid = pg_current_xact_id() and t.partition = tg_relid;
        if found then
            return null;
        end if;
    end if;
    select t.mode, o as box, n.nspname || '.' || c.relname as name,
           exists (select from tide.setting s where s.name = 'outbox_skip_empty_delta' and s.value = 'true') as skips,
           exists (select from pg_attribute a
                    where a.attrelid = tg_relid and a.attnum > 0 and not a.attisdropped
                      and (a.atttypid >= 16384 or a.attgenerated = 'v')) as particular
      into found_source
      from tide.table_outbox t
      join tide.outbox o on o.outbox_id = t.outbox_id
      join pg_class c on c.oid = t.source
      join pg_namespace n on n.oid = c.relnamespace
     where t.source in (tg_relid, pg_partition_root(tg_relid))
     limit 1;
    if not found then
        perform tide.table_outbox_refuse_table(tg_relid);
    elsif not (found_source.box).enabled then
        raise exception 'table "%" cannot be changed: its outbox "%" is disabled', found_source.name, (found_source.box).name using
            errcode = 'object_not_in_prerequisite_state',
            hint = format('Enable it: select tide.outbox_enable(%L); or let the table be no outbox: tide.table_outbox_disable.',
                          (found_source.box).name);
    end if;
    headers := jsonb_build_object('op', lower(tg_op), 'table', found_source.name);
    if tg_op = 'TRUNCATE' then
        perform tide.outbox_append(found_source.box, array[
            jsonb_build_object('v', 1, 'op', 'truncate')
            || case found_source.mode when 'row' then '{"key": null, "new": null, "old": null}'::jsonb
                                      else '{"inserted": [], "deleted": []}' end
            || case when tide.table_name(tg_relid) <> found_source.name
                    then jsonb_build_object('partition', tide.table_name(tg_relid)) else '{}' end],
            null, array[headers]);
        return null;
    end if;
    if found_source.mode = 'row' then
        key_columns := tide.table_key(tg_relid);
        if key_columns is null then
            raise exception 'table "%" is an outbox with a message for each row, and has lost its primary key', found_source.name using
                errcode = 'object_not_in_prerequisite_state',
                hint = 'Nothing was changed. Add a primary key, or call tide.table_outbox_disable and enable it with mode => ''statement''.';
        end if;
        -- Not a limit of messages here, but of memory.
        room := 1048576;
    else
        -- 160: what is around the arrays, at its longest.
        room := (found_source.box).max_payload_bytes - octet_length(headers::text) - 160;
    end if;
    if found_source.particular then
        columns := tide.table_outbox_columns(tg_relid);
    end if;
    -- i.* and d.*: i alone is a column, if the table has one of that name.
    if tg_op <> 'DELETE' then
        if columns is null then
            open new_rows no scroll for
                select s.j, octet_length(s.j::text) from (select to_jsonb(i.*) as j from inserted i offset 0) s;
        else
            open new_rows no scroll for execute format(
                'select s.j, octet_length(s.j::text) from (select to_jsonb(i.*) as j from (select %s from inserted) i offset 0) s', columns);
        end if;
    end if;
    if tg_op <> 'INSERT' then
        if columns is null then
            open old_rows no scroll for
                select s.j, octet_length(s.j::text) from (select to_jsonb(d.*) as j from deleted d offset 0) s;
        else
            open old_rows no scroll for execute format(
                'select s.j, octet_length(s.j::text) from (select to_jsonb(d.*) as j from (select %s from deleted) d offset 0) s', columns);
        end if;
    end if;
    loop
        if tg_op <> 'DELETE' then
            fetch new_rows into new_row, new_size;
            exit when not found;
        end if;
        if tg_op <> 'INSERT' then
            fetch old_rows into old_row, old_size;
            exit when not found;
            -- Equal numbers may differ in the digits that they show.
            continue when tg_op = 'UPDATE' and found_source.skips and new_size = old_size and new_row = old_row;
        end if;
        if waiting > 0 and filled + new_size + old_size + 4 > room or waiting >= 1000 and found_source.mode = 'row' then
            if found_source.mode = 'row' then
                perform tide.table_outbox_append_rows(found_source.box, headers, key_columns, olds, news);
            else
                statement := coalesce(statement, gen_random_uuid());
                chunk := chunk + 1;
                perform tide.table_outbox_append_chunk(found_source.box, headers, olds, news,
                    jsonb_build_object('statement', statement, 'chunk', chunk, 'last', false));
            end if;
            news := '{}';
            olds := '{}';
            filled := 0;
            waiting := 0;
        end if;
        if found_source.mode = 'statement' and new_size + old_size + 4 > room then
            perform tide.table_outbox_refuse_size(found_source.name, found_source.box,
                                                  (found_source.box).max_payload_bytes - room + new_size + old_size + 4);
        end if;
        filled := filled + new_size + old_size + 4;
        waiting := waiting + 1;
        if tg_op <> 'DELETE' then
            news := array_append(news, new_row);
        end if;
        if tg_op <> 'INSERT' then
            olds := array_append(olds, old_row);
        end if;
    end loop;
    if found_source.mode = 'row' then
        if waiting > 0 then
            perform tide.table_outbox_append_rows(found_source.box, headers, key_columns, olds, news);
        end if;
    elsif waiting > 0 or not found_source.skips then
        perform tide.table_outbox_append_chunk(found_source.box, headers, olds, news,
            case when chunk = 0 then '{}' else jsonb_build_object('statement', statement, 'chunk', chunk + 1, 'last', true) end);
    end if;
    if new_rows is not null then
        close new_rows;
    end if;
    if old_rows is not null then
        close old_rows;
    end if;
    return null;
end $$;
