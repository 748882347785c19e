-- The right to consume single groups, and to see how things are.
--
-- As with outboxes: from the first right to a single group on, every group is guarded, and a call asks for the right to
-- consume anywhere, which is EXECUTE on tide.consume_anywhere, or for the right to this group, which is EXECUTE on
-- tide.consume_from_N, N its group_id. So PostgreSQL keeps these rights as it keeps all others. Until then a call asks
-- nothing.

create or replace function tide.consume_anywhere() returns void
language sql immutable
begin atomic
end;
comment on function tide.consume_anywhere is 'Does nothing. Who may execute it may consume every group.';

create or replace function tide.see_anything() returns void
language sql immutable
begin atomic
end;
comment on function tide.see_anything is 'Does nothing. Who may execute it may see how every inbox and every consumer group is doing.';

create or replace function tide.may_see_anything() returns boolean
language sql stable
return has_function_privilege(tide.caller()::name, 'tide.see_anything()'::regprocedure, 'execute');

create or replace function tide.may_consume(group_id int) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    return has_function_privilege(tide.caller()::name, 'tide.consume_anywhere()'::regprocedure, 'execute')
        or not exists (select from tide.consumer_guard)
        or coalesce(has_function_privilege(
               tide.caller()::name, to_regprocedure(format('tide.consume_from_%s()', group_id))::oid, 'execute'), false);
end $$;

create or replace function tide.require_consumer(consumer_group tide.consumer_group, to_see boolean) returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    if not tide.may_consume(consumer_group.group_id) and not (to_see and tide.may_see_anything()) then
        raise exception 'role % may not consume group "%"', quote_ident(tide.caller()), consumer_group.name using
            errcode = 'insufficient_privilege',
            hint = format('Let the owner of schema tide, or a role of tide.grant_admin, run: select tide.consumer_group_grant(%L, %L);',
                          consumer_group.name, tide.caller());
    end if;
end $$;

create or replace function tide.consumer_group_grant(consumer_group text, role name) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    granted int;
    named   text;
begin
    perform tide.require_role(role);
    select g.group_id into granted from tide.consumer_group g
     where g.polled and g.name = consumer_group_grant.consumer_group for update;
    if not found then
        perform tide.refuse_consumer_group(consumer_group);
    end if;
    named := format('tide.consume_from_%s()', granted);
    if to_regprocedure(named) is null then
        execute format('create function %s returns void language sql immutable begin atomic end', named);
        execute format('revoke all on function %s from public', named);
        execute format('comment on function %s is %L', named,
                       format('Does nothing. Who may execute it may consume group "%s".', consumer_group));
    end if;
    insert into tide.consumer_guard default values on conflict do nothing;
    execute format('grant execute on function %s to %I', named, role);
    perform tide.grant_rights('group_consumer', role);
end $$;
comment on function tide.consumer_group_grant is
    'Lets a role consume this group. One that may consume every group (tide.grant_consumer) still may.';

create or replace function tide.consumer_group_revoke(consumer_group text, role name) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    named text;
begin
    perform tide.require_role(role);
    select format('tide.consume_from_%s()', g.group_id) into named from tide.consumer_group g
     where g.polled and g.name = consumer_group_revoke.consumer_group;
    if not found then
        perform tide.refuse_consumer_group(consumer_group);
    elsif to_regprocedure(named) is not null then
        execute format('revoke execute on function %s from %I', named, role);
    end if;
end $$;
comment on function tide.consumer_group_revoke is 'Takes back what tide.consumer_group_grant gave to this group, and nothing else.';
