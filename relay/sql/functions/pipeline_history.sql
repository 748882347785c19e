-- The history of configurations: every change, who made it and with what.

create or replace function tide.pipeline_described(line tide.pipeline) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select jsonb_strip_nulls(jsonb_build_object('outbox', o.name, 'consumer_group', g.name, 'inbox', i.name))
           || jsonb_build_object('direction', (line).direction, 'enabled', (line).enabled, 'config', (line).config)
      from (select 1) one
      left join tide.consumer_group g on g.group_id = (line).group_id
      left join tide.outbox o on o.outbox_id = g.outbox_id
      left join tide.inbox i on i.inbox_id = (line).inbox_id;
end;

create or replace function tide.keep_history() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    done text := case tg_op when 'INSERT' then 'create' when 'DELETE' then 'delete' else 'change' end;
begin
    if tg_op = 'UPDATE' and old.enabled <> new.enabled then
        done := case when new.enabled then 'enable' else 'disable' end;
    end if;
    insert into tide.pipeline_history (pipeline, action, changed_by, program, old, new)
    values (coalesce(new.name, old.name), done, tide.caller(), coalesce(current_setting('application_name', true), ''),
            case when tg_op <> 'INSERT' then tide.pipeline_described(old) end,
            case when tg_op <> 'DELETE' then tide.pipeline_described(new) end);
    return null;
end $$;

-- The relay's own notes on a pipeline, and a configuration that was set again as it was, are no change.
create or replace trigger keep_history after insert or delete on tide.pipeline
    for each row execute function tide.keep_history();
create or replace trigger keep_history_of_changes after update on tide.pipeline
    for each row when ((old.enabled, old.config, old.group_id, old.inbox_id) is distinct from
                       (new.enabled, new.config, new.group_id, new.inbox_id))
    execute function tide.keep_history();

create or replace function tide.relay_config_history(pipeline text default null)
returns table (
    changed_at timestamptz, pipeline text, action text, changed_by text, program text, old jsonb, new jsonb
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select h.changed_at, h.pipeline, h.action, h.changed_by, h.program, h.old, h.new
      from tide.pipeline_history h
     where relay_config_history.pipeline is null or h.pipeline = relay_config_history.pipeline
     order by h.history_id
$$;
comment on function tide.relay_config_history is 'Every change of a pipeline, also of one that is gone: when, who, what it was and what it became.';
