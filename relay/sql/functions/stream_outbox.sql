-- The changes of stream tables as messages: what a refresh changed, published in its transaction.
--
-- A table outbox would publish each statement of a refresh. This is one change of the table from one snapshot to another, and
-- where it is large, several messages that name their part.

create or replace function tide.is_stream_table(relation regclass) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic select exists (select from tide.stream s where s.relation = is_stream_table.relation); end;
comment on function tide.is_stream_table is 'Whether refreshes write this table.';

create or replace function tide.stream_outbox_enable(
    name text, outbox text default null, retention_hours int default null, max_payload_bytes int default 1048576
) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line     tide.stream := tide.find_stream(name);
    present  text := (select o.name from tide.outbox o where o.outbox_id = line.outbox_id);
    box_name text := coalesce(outbox, present, tide.table_name(line.relation));
begin
    if present <> box_name then
        raise exception 'stream table "%" has an outbox already: "%"', line.name, present using
            errcode = 'duplicate_object', hint = format('To change that, call first: select tide.stream_outbox_disable(%L);', line.name);
    elsif box_name !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$' then
        raise exception 'the name of stream table "%" is not valid for an outbox', box_name using
            errcode = 'invalid_name',
            hint = format('Give one of up to 100 letters, digits, "_", "-" and ".": select tide.stream_outbox_enable(%L, outbox => ...);', line.name);
    elsif exists (select from tide.table_outbox t where t.source = line.relation) then
        raise exception 'stream table "%" is a table outbox, which publishes each statement of a refresh', line.name using
            errcode = 'duplicate_object', hint = format('Call first: select tide.table_outbox_disable(%L);', line.relation::text);
    end if;
    if not tide.outbox_create_if_not_exists(
        box_name, coalesce(retention_hours, tide.setting_number('outbox_retention_hours')), max_payload_bytes)
    then
        update tide.outbox o set retention_hours = stream_outbox_enable.retention_hours
         where o.name = box_name and o.retention_hours <> stream_outbox_enable.retention_hours;
    end if;
    update tide.stream s set outbox_id = (tide.find_message_outbox(box_name)).outbox_id
     where s.stream_id = line.stream_id and s.outbox_id is null
    returning * into line;
    if found and tide.stream_is_immediate(line.stream_id) then
        perform tide.stream_immediate_make(line);
    end if;
    return box_name;
end $$;
comment on function tide.stream_outbox_enable is
    'Has each refresh of a stream table publish what it changed. Returns the name of the outbox, which is created if it is missing.';

create or replace function tide.stream_outbox_disable(name text, drop_outbox boolean default false) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line tide.stream := tide.find_stream(name);
begin
    update tide.stream s set outbox_id = null where s.stream_id = line.stream_id;
    if line.outbox_id is not null and tide.stream_is_immediate(line.stream_id) then
        perform tide.stream_immediate_make(s) from tide.stream s where s.stream_id = line.stream_id;
    end if;
    if drop_outbox and line.outbox_id is not null then
        perform tide.outbox_drop((select o.name from tide.outbox o where o.outbox_id = line.outbox_id));
    end if;
end $$;
comment on function tide.stream_outbox_disable is 'The stream table publishes no more. What was published is still delivered, unless the outbox is dropped.';

-- Where a statement leaves what it changes: in a table, since a large change does not fit into memory. Writers keep one that they empty
-- again: a transaction that has used a temporary table cannot be prepared.
create or replace function tide.stream_told(line tide.stream) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return case when tide.stream_is_immediate(line.stream_id) then format('tide_stream.told_%s', line.stream_id) else 'pg_temp.tide_told' end;
end $$;

-- Makes that table before a refresh.
create or replace function tide.stream_told_make(line tide.stream) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if line.outbox_id is not null and not tide.stream_is_immediate(line.stream_id) then
        execute format('create temporary table tide_told on commit drop as select false as __came, 0::bigint as __times, t.* from %s t with no data',
                       line.relation);
        perform tide.stream_lend(line, 'insert', 'pg_temp.tide_told');
    end if;
end $$;

-- The part of the statement that does so; null without an outbox. A node tells what reads it.
create or replace function tide.stream_told_text(line tide.stream) returns text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select format('told_ as (insert into %2$s (__came, __times, %1$s)
                   select false, __times, %1$s from gone union all select true, __times, %1$s from came)',
                  (select string_agg(format('%I', n), ', ') from unnest(tide.stream_key_names(line, null)) n), tide.stream_told(line))
     where line.outbox_id is not null
     union all
    select format('told_ as (insert into %2$s (__w, %1$s) select -__times, %1$s from gone union all select __times, %1$s from came)',
                  (select string_agg(format('%I', n), ', ') from unnest(tide.stream_key_names(line, null)) n), tide.stream_node_changed(line.stream_id))
     where line.pipeline is null and tide.stream_node_changed(line.stream_id) is not null;
end;

-- Publishes what a refresh changed. It is the difference also where the result was computed as a whole: no reader has to begin
-- again, which is what full_refresh would say. Whatever the settings of the query are, a value has one form.
create or replace function tide.stream_publish(line tide.stream, refresh_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp set datestyle = 'ISO, MDY' set timezone = 'UTC'
    set intervalstyle = 'iso_8601' set extra_float_digits = 1 set bytea_output = 'hex' set lc_monetary = 'C' as $$
declare
    box      tide.outbox;
    source   text := tide.table_name(line.relation);
    headers  jsonb := jsonb_build_object('op', 'refresh', 'table', source);
    head     jsonb := jsonb_build_object('v', 1, 'refresh_id', refresh_id, 'data_timestamp', transaction_timestamp(), 'full_refresh', false);
    -- 120: what else is around the arrays, at its longest.
    room     int;
    changed  record;
    inserted jsonb[] := '{}';
    deleted  jsonb[] := '{}';
    filled   bigint := 0;
    chunk    int := 0;
begin
    select * into box from tide.outbox o where o.outbox_id = line.outbox_id;
    if not box.enabled then
        raise exception 'stream table "%" cannot be refreshed: its outbox "%" is disabled', line.name, box.name using
            errcode = 'object_not_in_prerequisite_state',
            hint = format('Enable it: select tide.outbox_enable(%L); or let it have none: select tide.stream_outbox_disable(%L);', box.name, line.name);
    end if;
    room := box.max_payload_bytes - octet_length(headers::text) - octet_length(head::text) - 120;
    for changed in execute format('select t.came, t.document, octet_length(t.document::text) + 4 as size
                                     from (select d.__came as came, to_jsonb(r.*) as document
                                             from %s d cross join lateral generate_series(1, d.__times) __number
                                            cross join lateral (select %s) r order by d.__came offset 0) t',
                                  tide.stream_told(line),
                                  coalesce(tide.table_outbox_columns(line.relation),
                                           (select string_agg(format('d.%I', n), ', ') from unnest(tide.stream_key_names(line, null)) n)))
    loop
        if changed.size > room then
            perform tide.table_outbox_refuse_size(source, box, box.max_payload_bytes - room + changed.size);
        elsif filled + changed.size > room then
            chunk := chunk + 1;
            perform tide.stream_publish_chunk(box, headers, head, inserted, deleted, jsonb_build_object('chunk', chunk, 'last', false));
            inserted := '{}';
            deleted := '{}';
            filled := 0;
        end if;
        filled := filled + changed.size;
        if changed.came then
            inserted := array_append(inserted, changed.document);
        else
            deleted := array_append(deleted, changed.document);
        end if;
    end loop;
    if filled > 0 then
        perform tide.stream_publish_chunk(box, headers, head, inserted, deleted,
                                          case when chunk = 0 then '{}' else jsonb_build_object('chunk', chunk + 1, 'last', true) end);
    end if;
    if tide.stream_is_immediate(line.stream_id) then
        execute format('delete from %s', tide.stream_told(line));
    else
        drop table pg_temp.tide_told;
    end if;
end $$;

create or replace function tide.stream_publish_chunk(
    box tide.outbox, headers jsonb, head jsonb, inserted jsonb[], deleted jsonb[], part jsonb
) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.outbox_append(
        box, array[head || jsonb_build_object('inserted', to_jsonb(inserted), 'deleted', to_jsonb(deleted)) || part], null, array[headers]);
end $$;
