-- The right to publish to single outboxes.
--
-- Publishing runs with its owner's rights, so that PostgreSQL does not ask who publishes where. From the first right to
-- a single outbox on, every outbox is guarded, and a publish asks: for the right to publish anywhere, which is EXECUTE
-- on tide.publish_anywhere, or for the right to this outbox, which is EXECUTE on tide.publish_to_N, N its outbox_id. Both
-- functions do nothing, so the right allows nothing else: one on the sequence of the ids would allow to burn them, and
-- SELECT on anything comes with pg_read_all_data. So PostgreSQL keeps these rights as it keeps all others: through
-- memberships, renamed roles, DROP OWNED, dumps. Until then a publish reads one boolean. A queue of jobs takes no message:
-- it is always guarded, and the question that follows says so.

-- Who asks. current_user is the owner inside a function that runs with its owner's rights.
create or replace function tide.caller() returns text
language sql stable
return coalesce(nullif(current_setting('role', true), 'none'), session_user::text);

create or replace function tide.publish_anywhere() returns void
language sql immutable
begin atomic
end;
comment on function tide.publish_anywhere is 'Does nothing. Who may execute it may publish to every outbox.';

-- Inside a function that runs with its owner's rights the caller is known only as the role of the session.
create or replace function tide.may_publish(outbox_id int) returns boolean
language sql stable
return has_function_privilege(tide.caller()::name, 'tide.publish_anywhere()'::regprocedure, 'execute')
    or coalesce(has_function_privilege(
           tide.caller()::name, to_regprocedure('tide.publish_to_' || outbox_id || '()')::oid, 'execute'), false);

create or replace function tide.new_outbox_guarded() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    new.guarded := new.kind = 'jobs' or exists (select from tide.publish_guard);
    return new;
end $$;
create or replace trigger new_outbox_guarded before insert on tide.outbox for each row execute function tide.new_outbox_guarded();

-- The lock keeps outboxes from being made meanwhile, which would not see that they are to be guarded. Publishers go on.
create or replace function tide.guard_publishing() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
begin
    if not exists (select from tide.publish_guard) then
        lock table tide.outbox in share row exclusive mode;
        insert into tide.publish_guard default values on conflict do nothing;
        update tide.outbox o set guarded = true where not o.guarded;
    end if;
end $$;

-- The function is made with the first right; the row lock has two who give it wait for each other.
create or replace function tide.outbox_grant_publish(outbox text, role name) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box   tide.outbox := tide.find_message_outbox(outbox);
    named text := format('tide.publish_to_%s()', box.outbox_id);
begin
    perform tide.require_role(role);
    perform tide.guard_publishing();
    perform from tide.outbox o where o.outbox_id = box.outbox_id for no key update;
    if to_regprocedure(named) is null then
        execute format('create function %s returns void language sql immutable begin atomic end', named);
        execute format('revoke all on function %s from public', named);
        execute format('comment on function %s is %L', named,
                       format('Does nothing. Who may execute it may publish to outbox "%s".', box.name));
    end if;
    execute format('grant usage on schema tide to %I', role);
    execute format('grant execute on function %s, tide.outbox_limit(text), tide.outbox_publish(text, jsonb, jsonb, text), '
                   'tide.outbox_publish_many(text, jsonb[], text[], jsonb[]), '
                   'tide.outbox_more(int, int, text, regclass, regclass, bigint), tide.outbox_ask(int), '
                   'tide.outbox_fits(int, jsonb, jsonb, text) to %I', named, role);
    perform tide.outbox_grant_views(role, array[box]);
end $$;
comment on function tide.outbox_grant_publish is
    'Lets a role publish to this outbox. One that may publish to every outbox (tide.grant_publisher) still may.';

create or replace function tide.outbox_revoke_publish(outbox text, role name) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    box   tide.outbox := tide.find_message_outbox(outbox);
    named text := format('tide.publish_to_%s()', box.outbox_id);
begin
    perform tide.require_role(role);
    perform from tide.outbox o where o.outbox_id = box.outbox_id for no key update;
    if to_regprocedure(named) is not null then
        execute format('revoke execute on function %s from %I', named, role);
    end if;
    if not exists (select from pg_proc p cross join aclexplode(p.proacl) a
                    where p.oid = 'tide.publish_anywhere()'::regprocedure and a.grantee = to_regrole(quote_ident(role))) then
        perform tide.outbox_revoke_view(role, box);
    end if;
end $$;
comment on function tide.outbox_revoke_publish is 'Takes back what tide.outbox_grant_publish gave, and nothing else.';
