-- Settings of the database: one row each, read whenever they are needed, so that a change counts at once.

create table tide.setting (
    name          text primary key,
    kind          text not null check (kind in ('boolean', 'hours', 'count')),
    value         text not null,
    default_value text not null,
    description   text not null,
    check (case kind when 'boolean' then value in ('true', 'false') else value ~ '^\d{1,9}$' end)
);
comment on table tide.setting is 'Change a value with tide.setting_set; the names are fixed.';

insert into tide.setting (name, kind, value, default_value, description)
select s.name, s.kind, s.value, s.value, s.description
  from (values
    ('outbox_enabled', 'boolean', 'true', 'Whether outboxes may be created. Those that are there work on.'),
    ('outbox_retention_hours', 'hours', '24', 'Retention of an outbox that is created without one.'),
    ('outbox_force_retention', 'boolean', 'true',
     'Whether messages are kept beyond the retention until every consumer group has settled them.'),
    ('max_retention_hours', 'hours', '168',
     'How long a disabled pipeline, or a consumer group that nobody polls, may hold messages beyond their settling by the others. 0: for ever.'),
    ('outbox_skip_empty_delta', 'boolean', 'true', 'Whether a table outbox leaves out statements that changed nothing.'),
    ('consumer_dead_threshold_hours', 'hours', '24', 'How long a consumer may be silent until it is taken for dead.'),
    ('consumer_cleanup_enabled', 'boolean', 'true', 'Whether dead consumers are removed, and what they hold is given to others.'),
    ('inbox_enabled', 'boolean', 'true', 'Whether inboxes may be created. Those that are there work on.'),
    ('inbox_processed_retention_hours', 'hours', '72', 'How long processed messages stay in an inbox that has no retention of its own. 0: for ever.'),
    ('inbox_dlq_retention_hours', 'hours', '0', 'How long dead messages stay in an inbox that has no retention of its own. 0: for ever.'),
    ('inbox_dlq_alert_max_per_refresh', 'count', '10', 'So many newly dead messages within five minutes make the health of an inbox critical.'),
    ('dead_letter_retention_hours', 'hours', '0', 'How long dead letters of pipelines are kept. 0: for ever.'),
    ('config_history_retention_hours', 'hours', '0', 'How long the history of configurations is kept. 0: for ever.')
  ) as s (name, kind, value, description);

create function tide.find_setting(setting text) returns tide.setting
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

create function tide.setting_number(setting text) returns int
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic select (tide.find_setting(setting)).value::int; end;
comment on function tide.setting_number is 'The value of a setting that is a number: hours, or a count.';

create function tide.setting_is_on(setting text) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic select (tide.find_setting(setting)).value::boolean; end;
comment on function tide.setting_is_on is 'The value of a setting that is true or false.';

create function tide.setting_set(setting text, value text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    present tide.setting := tide.find_setting(setting);
    wanted  text := btrim(lower(value));
begin
    wanted := case when present.kind <> 'boolean' then wanted
                   when wanted in ('true', 'on', 'yes', '1') then 'true'
                   when wanted in ('false', 'off', 'no', '0') then 'false' end;
    if wanted is null or present.kind <> 'boolean' and wanted !~ '^\d{1,9}$' then
        raise exception '% is no value for setting %', coalesce(quote_literal(value), 'NULL'), present.name using
            errcode = 'invalid_parameter_value',
            hint = case present.kind when 'boolean' then 'It is true or false.' else 'It is a whole number, 0 or more.' end;
    end if;
    update tide.setting s set value = wanted where s.name = present.name;
end $$;
comment on function tide.setting_set is 'Changes a setting, for everything that reads it from now on.';

create function tide.setting_reset(setting text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.setting_set(setting, (tide.find_setting(setting)).default_value);
end $$;

revoke all on all functions in schema tide from public;
