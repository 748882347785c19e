-- Tables as outboxes: what statements change is published, whoever runs them, in their own transactions.
--
-- Triggers for each statement hand over the rows as they were and as they are. Their function runs with the rights of
-- this schema's owner, so that writers need none here, and therefore
--   * believes no argument: a trigger counts only on a table that tide.table_outbox lists, and to its outbox alone. Who
--     may create a trigger on a table is PostgreSQL's to say, so a table is listed once its triggers are there;
--   * never calls what a user may have made. Turning a row into JSON calls the casts to json of its columns' types, and
--     the owner of a type can make such a cast: see tide.table_outbox_columns.
--
-- The two transition tables of an UPDATE hold the old and the new versions in the same order, a pair for each row, also
-- of a row that moves to another partition: the executor writes both at once. Pairs are found by their place.

-- Publishes without any check, for functions that have made their own. As in outbox_publish_many the mark, the look at
-- the bell and the rows are three statements, in this order.
create function tide.outbox_append(box tide.outbox, payloads jsonb[], keys text[], headers jsonb[]) returns bigint[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    mark    text;
    new_ids bigint[];
    asleep  boolean;
begin
    if current_setting('tide.inflight_' || box.outbox_id, true) is distinct from 'on' then
        mark := tide.outbox_mark(box.outbox_id, box.ids);
        asleep := tide.outbox_asleep(box.outbox_id);
    end if;
    with given as (
        select coalesce(m.payload, 'null') as payload, m.key, coalesce(m.headers, '{}') as headers
          from unnest(payloads, keys, headers) with ordinality as m (payload, key, headers, number)
         order by m.number
    ), written as (
        insert into tide.message (outbox_id, id, size, key, headers, payload)
        select box.outbox_id, nextval(box.ids),
               octet_length(g.payload::text) + octet_length(g.headers::text) + coalesce(octet_length(g.key), 0),
               g.key, g.headers, g.payload
          from given g
        returning id
    )
    select array_agg(w.id order by w.id) into new_ids from written w;
    if asleep then
        perform pg_notify('tide_outbox_notify', box.name);
    end if;
    return new_ids;
end $$;
comment on function tide.outbox_append is
    'Publishes messages in the order of the array and returns their ids. Whoever calls it has checked outbox, sizes and headers.';

create or replace function tide.outbox_publish_many(
    outbox text, payloads jsonb[], keys text[] default null, headers jsonb[] default null
) returns bigint[]
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box     tide.outbox := tide.find_outbox(outbox);
    wanted  int := coalesce(cardinality(payloads), 0);
    wrong   record;
    refusal text;
begin
    if not box.enabled then
        refusal := tide.outbox_refuse(outbox, null, 0);
    elsif cardinality(keys) <> wanted or cardinality(headers) <> wanted then
        raise exception 'outbox_publish_many got % payloads, % keys and % headers',
            wanted, coalesce(cardinality(keys), 0), coalesce(cardinality(headers), 0) using
            errcode = 'array_subscript_error',
            hint = 'Give arrays of the same length, or NULL for all keys or all headers. Nothing was published.';
    elsif wanted = 0 then
        return '{}';
    end if;
    select * into wrong
      from (select m.number, m.headers, coalesce(octet_length(m.payload::text), 4) + coalesce(octet_length(m.headers::text), 2)
                   + coalesce(octet_length(m.key), 0)::bigint as size
              from unnest(payloads, keys, headers) with ordinality as m (payload, key, headers, number)) m
     where m.size > box.max_payload_bytes or jsonb_typeof(m.headers) <> 'object'
     order by m.number
     limit 1;
    if found then
        refusal := tide.outbox_refuse(outbox, wrong.headers, wrong.size, format('message %s of the array: ', wrong.number));
    end if;
    return tide.outbox_append(box, payloads, keys, headers);
end $$;

-- What is an outbox ----------------------------------------------------------------------------------------------------

create table tide.table_outbox (
    source      regclass primary key,
    source_name text not null,
    outbox_id   int not null references tide.outbox,
    mode        text not null check (mode in ('statement', 'row')),
    enabled_at  timestamptz not null default now()
);
create index on tide.table_outbox (outbox_id);
comment on table tide.table_outbox is 'The tables that are outboxes. A name or a schema may change: the table stays known by its oid.';
comment on column tide.table_outbox.source_name is 'The name it was enabled by, for people: the table may have been dropped.';

-- The partitions that the running TRUNCATE of their parent empties too: that is published once, for the parent. No row
-- outlives its statement. A setting would do, but any role can change those.
create table tide.truncating (
    xid       xid8,
    partition oid,
    primary key (xid, partition)
);

create function tide.table_name(source oid) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = source;
end;
comment on function tide.table_name is 'Schema and name, as messages and errors tell it: not quoted. Null if there is no such table.';

-- The primary key, else a replica identity: unique, never null, of the whole table. In PL/pgSQL, which keeps its plans:
-- this is asked for each statement.
create function tide.table_key(source oid) returns text[]
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

create function tide.is_array(type pg_type) returns boolean
language sql immutable parallel safe
return type.typtype = 'b' and type.typelem <> 0 and type.typlen = -1;

-- How the columns are selected from a transition table, or null if all of them can be taken as they are.
--   * A type that a user made may have a cast to json, which the conversion would call with our rights. Only a superuser
--     can make casts of a superuser's type, so extensions keep theirs. Enums, ranges and base types of others are given
--     as text, and so is a composite type that has one inside; an array of them as an array of texts, a domain over an
--     array as one text.
--   * Virtual columns are null in transition tables. PostgreSQL lets them call built-in functions only.
create function tide.table_outbox_columns(source oid) returns text
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

-- Publishing what a statement changed --------------------------------------------------------------------------------------

create function tide.table_outbox_refuse_size(source text, box tide.outbox, size bigint) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception 'a row of table "%" makes a message of % bytes, the limit of outbox "%" is %', source, size, box.name,
        box.max_payload_bytes using
        errcode = 'program_limit_exceeded',
        hint = format('The statement changed nothing. Raise the limit: update tide.outbox set max_payload_bytes = %s where name = %L; '
                      'or keep large data in another table.', least(2 * size, 268435456), box.name);
end $$;

create function tide.table_outbox_refuse_table(source oid) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'table "%" became an outbox after this transaction began', tide.table_name(source) using
            errcode = 'serialization_failure', hint = 'Nothing was changed. Run the transaction again.';
    end if;
    raise exception 'table "%" has the triggers of an outbox, and is none', tide.table_name(source) using
        errcode = 'object_not_in_prerequisite_state',
        hint = format('Was it a partition, or restored from elsewhere? Make it an outbox: select tide.table_outbox_enable(%1$L); '
                      'or take the triggers away: select tide.table_outbox_disable(%1$L);', source::regclass::text);
end $$;

-- One message for many rows. Pairs of an UPDATE have the same place in both arrays.
create function tide.table_outbox_append_chunk(
    box tide.outbox, headers jsonb, olds jsonb[], news jsonb[], chunk jsonb
) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.outbox_append(
        box, array[jsonb_build_object('v', 1, 'op', headers -> 'op', 'inserted', to_jsonb(news), 'deleted', to_jsonb(olds)) || chunk],
        null, array[headers]);
end $$;

-- A message for each row. One whose key was changed is gone for those who go by the key, and another is there.
create function tide.table_outbox_append_rows(
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
create function tide.table_outbox_changed() returns trigger
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

-- Making a table an outbox ---------------------------------------------------------------------------------------------------

-- The table and all its partitions, which get the triggers; or why it cannot be an outbox.
create function tide.table_outbox_tables(source oid) returns setof regclass
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
    if refusal is null and exists (select from pg_partition_tree(source) p join pg_class c on c.oid = p.relid where c.relkind = 'f') then
        refusal := 'partitioned, with a foreign table as a partition';
    end if;
    if refusal is not null then
        raise exception '"%" cannot be an outbox: it is %', tide.table_name(source), refusal using
            errcode = 'wrong_object_type', hint = advice;
    end if;
    return query select source::regclass union select p.relid from pg_partition_tree(source) p;
end $$;

-- The triggers that each of the tables needs; a partitioned one a fifth.
create function tide.table_outbox_triggers(source oid)
returns table (relation regclass, name text, event text, state "char")
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select t.relid, e.name, e.event, g.tgenabled
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

-- Lists the table, if all its triggers are there: whoever had the right to create those may make it an outbox.
create function tide.table_outbox_register(source oid, outbox text, mode text, retention_hours int, max_payload_bytes int)
returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    listed      record;
    box_name    text := table_outbox_register.outbox;
    occupant    text;
begin
    perform tide.table_outbox_tables(source);
    if exists (select from tide.table_outbox_triggers(source) t where t.state is null) then
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
            raise exception 'the name of table "%" is none for an outbox', box_name using
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
    values (source, tide.table_name(source), (tide.find_outbox(box_name)).outbox_id, mode)
    on conflict on constraint table_outbox_pkey do update set source_name = excluded.source_name;
    return box_name;
end $$;

create function tide.table_outbox_forget(source oid, drop_outbox boolean) returns void
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
create function tide.table_outbox_enable(
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
    'Makes a table an outbox, or mends one that is; returns the name of the outbox. What statements change from now on is published.';

create function tide.table_outbox_disable(source regclass, drop_outbox boolean default false) returns void
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

create function tide.table_outbox_problem(source oid, mode text) returns text
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
    select string_agg(format('trigger %s of %s is %s', t.name, t.relation, case when t.state is null then 'missing' else 'disabled' end),
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

create function tide.table_outbox_status(source regclass default null)
returns table (
    source_table text, outbox text, mode text, outbox_enabled boolean, last_id bigint, tables int, intact boolean, problem text
)
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(tide.table_name(t.source), t.source_name), o.name, t.mode, o.enabled, tide.outbox_last_id(o.outbox_id),
           (select greatest(count(*), 1)::int from pg_partition_tree(t.source) p), d.problem is null, d.problem
      from tide.table_outbox t
      join tide.outbox o on o.outbox_id = t.outbox_id
     cross join lateral (select tide.table_outbox_problem(t.source, t.mode) as problem) d
     where table_outbox_status.source is null or t.source = table_outbox_status.source
     order by 1;
end;
comment on function tide.table_outbox_status is
    'A row for each table that is an outbox. tables: itself and its partitions. problem: what is wrong and what to do, or null.';

-- Dropping an outbox under a table would leave a table that refuses every change.
create function tide.keep_table_outbox() returns trigger
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
    return old;
end $$;
create trigger keep_table_outbox before delete on tide.outbox for each row execute function tide.keep_table_outbox();

revoke all on all functions in schema tide from public;
