-- Settings of the database: rows of tide.setting, read whenever they are needed.

create or replace function tide.find_setting(setting text) returns tide.setting
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    found_setting tide.setting;
begin
    select * into found_setting from tide.setting s where s.name = find_setting.setting;
    if not found then
        raise exception 'setting % does not exist', coalesce(quote_ident(setting), 'NULL') using
            errcode = 'undefined_object',
            hint = format('There are: %s.', (select string_agg(s.name, ', ' order by s.name) from tide.setting s));
    end if;
    return found_setting;
end $$;

create or replace function tide.setting_number(setting text) returns int
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic select (tide.find_setting(setting)).value::int; end;
comment on function tide.setting_number is 'The value of a setting that is a number: hours, or a count.';

create or replace function tide.setting_is_on(setting text) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic select (tide.find_setting(setting)).value::boolean; end;
comment on function tide.setting_is_on is 'The value of a setting that is true or false.';

create or replace function tide.setting_set(setting text, value text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    present tide.setting := tide.find_setting(setting);
    wanted  text := btrim(lower(value));
begin
    wanted := case when present.kind <> 'boolean' then wanted
                   when wanted in ('true', 'on', 'yes', '1') then 'true'
                   when wanted in ('false', 'off', 'no', '0') then 'false' end;
    if present.kind = 'duration' then
        wanted := nullif(wanted, 'calculated');
        perform tide.stream_interval_ms(wanted);
    elsif wanted is null or present.kind <> 'boolean' and wanted !~ E'^\\d{1,9}$' then
        raise exception '% is no value for setting %', coalesce(quote_literal(value), 'NULL'), present.name using
            errcode = 'invalid_parameter_value',
            hint = case present.kind when 'boolean' then 'It is true or false.' else 'It is a whole number, 0 or more.' end;
    end if;
    update tide.setting s set value = wanted where s.name = present.name;
    if present.name = 'stream_calculated_min_interval_ms' then
        perform tide.stream_configure_all(array(select s.stream_id from tide.stream s where s.schedule = 'calculated'));
    end if;
end $$;
comment on function tide.setting_set is 'Changes a setting, for everything that reads it from now on.';

create or replace function tide.setting_reset(setting text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
begin
    perform tide.setting_set(setting, (tide.find_setting(setting)).default_value);
end $$;
