-- The right to work on single inboxes.
--
-- What works on inboxes runs with the caller's rights, so that the right to an inbox is the right to its table.

create or replace function tide.inbox_rights(inbox text, verb text, role name) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box    tide.inbox := tide.find_inbox(inbox);
    object record;
    towards text := case verb when 'grant' then 'to' else 'from' end;
begin
    perform tide.require_role(role);
    for object in
        select c.oid::regclass as named, c.relkind = 'r' as is_table, pg_has_role(c.relowner, 'usage') as ours
          from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = box.table_schema
           and (c.relname = box.table_name and c.relkind in ('r', 'p')
                or c.relname in (box.name || '_pending', box.name || '_dlq', box.name || '_stats', 'next_' || box.name)
                   and c.relkind = 'v')
         order by c.relkind, c.oid
    loop
        if not object.ours then
            raise exception 'the table % of inbox "%" belongs to another role', object.named, inbox using
                errcode = 'insufficient_privilege',
                hint = format('Let its owner run: %s select, update on %s %s %I;', verb, object.named, towards, role);
        end if;
        execute format('%s %s on %s %s %I', verb, case when object.is_table then 'select, update' else 'select' end,
                       object.named, towards, role);
    end loop;
end $$;

create or replace function tide.inbox_grant(inbox text, role name) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box tide.inbox := tide.find_inbox(inbox);
begin
    perform tide.inbox_rights(inbox, 'grant', role);
    if pg_has_role((select n.nspowner from pg_namespace n where n.nspname = box.table_schema), 'usage') then
        execute format('grant usage on schema %I to %I', box.table_schema, role);
    end if;
    perform tide.grant_rights('inbox_worker', role);
end $$;
comment on function tide.inbox_grant is 'Lets a role read this inbox and work it off: claim, mark, or UPDATE by hand. It can neither add nor remove messages.';

create or replace function tide.inbox_revoke(inbox text, role name) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
begin
    perform tide.inbox_rights(inbox, 'revoke', role);
end $$;
comment on function tide.inbox_revoke is 'Takes back what tide.inbox_grant gave to this inbox.';
