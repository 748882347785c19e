-- Kinds of roles, each with the least that it needs. A right is a row of tide.permission, and nowhere else;
-- tide.grant_admin, tide.grant_publisher and the others give a role all rows of its kind.

-- Which kinds a kind is, beside itself.
create or replace function tide.kinds_of(kind text) returns text[]
language sql immutable
return case kind when 'admin' then array['admin', 'operator', 'reader', 'job_operator']
                 when 'operator' then array['operator', 'reader', 'job_operator']
                 when 'relay' then array['relay', 'api', 'inbox_writer', 'job_worker']
                 when 'api' then array['api', 'inbox_writer']
                 when 'consumer' then array['consumer', 'group_consumer', 'inbox_worker']
                 else array[kind] end;

create or replace function tide.require_role(role name) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from pg_roles r where r.rolname = require_role.role) then
        raise exception 'role % does not exist', coalesce(quote_ident(role), 'NULL') using
            errcode = 'undefined_object', hint = 'Create it first, or have relay migrate --roles make the roles of tide-relay.';
    end if;
end $$;

create or replace function tide.grant_rights(kind text, role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    object record;
begin
    perform tide.require_role(role);
    for object in
        select distinct p.schema from tide.permission p
         where p.kind = any (tide.kinds_of(grant_rights.kind)) and to_regnamespace(quote_ident(p.schema)) is not null
    loop
        execute format('grant usage on schema %I to %I', object.schema, role);
    end loop;
    for object in
        select p.privileges, 'function ' || f.oid::regprocedure as named
          from tide.permission p
          join pg_namespace n on n.nspname = p.schema
          join pg_proc f on f.pronamespace = n.oid and f.proname = p.object
         where p.object_type = 'function' and p.kind = any (tide.kinds_of(grant_rights.kind))
         union all
        select p.privileges, format('%s %I.%I', p.object_type, p.schema, p.object)
          from tide.permission p
          join pg_namespace n on n.nspname = p.schema
          join pg_class c on c.relnamespace = n.oid and c.relname = p.object
         where p.object_type <> 'function' and p.kind = any (tide.kinds_of(grant_rights.kind))
    loop
        execute format('grant %s on %s to %I', object.privileges, object.named, role);
    end loop;
    if 'publisher' = any (tide.kinds_of(kind)) then
        perform tide.outbox_grant_views(role, array(select o from tide.outbox o where o.kind = 'messages'));
    end if;
end $$;

create or replace function tide.grant_admin(role name) returns void
language sql set search_path = pg_catalog, pg_temp
begin atomic select tide.grant_rights('admin', role); end;
comment on function tide.grant_admin is 'Lets a role configure, and all that an operator may. It can neither publish nor read an outbox.';

create or replace function tide.grant_operator(role name) returns void
language sql set search_path = pg_catalog, pg_temp
begin atomic select tide.grant_rights('operator', role); end;
comment on function tide.grant_operator is
    'Lets a role stop and start pipelines, see to dead letters and replays, and read configurations; and all that a reader may.';

create or replace function tide.grant_reader(role name) returns void
language sql set search_path = pg_catalog, pg_temp
begin atomic select tide.grant_rights('reader', role); end;
comment on function tide.grant_reader is 'Lets a role see how things are: no message, no configuration.';

-- Two roles, so that no application and no relay needs to own the schema.
create or replace function tide.grant_publisher(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.grant_rights('publisher', role);
end $$;
comment on function tide.grant_publisher is 'Lets a role publish to every outbox, and nothing else. For single ones: tide.outbox_grant_publish.';

create or replace function tide.grant_consumer(role name) returns void
language sql set search_path = pg_catalog, pg_temp
begin atomic select tide.grant_rights('consumer', role); end;
comment on function tide.grant_consumer is
    'Lets a role poll every consumer group, and call what works inboxes off: those that tide.inbox_grant gives it.';

-- A role that runs everything runs the API too.
create or replace function tide.grant_relay(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.grant_rights('relay', role);
end $$;
comment on function tide.grant_relay is
    'Lets a role run schedulers, workers and the API: read messages, move offsets and positions, write inboxes and dead letters.';

create or replace function tide.grant_api(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.grant_rights('api', role);
end $$;
comment on function tide.grant_api is 'Lets a role run the API: read how pipelines are configured, and write inboxes.';

create or replace function tide.grant_inbox_writer(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.grant_rights('inbox_writer', role);
end $$;
comment on function tide.grant_inbox_writer is 'Lets a role write messages into inboxes, and nothing else: for inbox sinks of other databases.';

create or replace function tide.grant_job_publisher(role name) returns void
language sql set search_path = pg_catalog, pg_temp
begin atomic select tide.grant_rights('job_publisher', role); end;
comment on function tide.grant_job_publisher is 'Lets a role enqueue jobs in every queue, and nothing else.';

create or replace function tide.grant_job_worker(role name) returns void
language sql set search_path = pg_catalog, pg_temp
begin atomic select tide.grant_rights('job_worker', role); end;
comment on function tide.grant_job_worker is 'Lets a role claim and end jobs, for consumers of its own. What grant_relay gives includes it.';

-- The last step of relay migrate. Until then PUBLIC may execute a new function. The roles of relay migrate --roles get the
-- rights to what is new, in a database where they have rights at all.
create or replace function tide.apply_permissions() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    function_name text;
    standard      record;
begin
    for function_name in
        select f.oid::regprocedure::text from pg_proc f join pg_namespace n on n.oid = f.pronamespace
         where n.nspname in ('tide', 'pgtrickle') and has_function_privilege('public', f.oid, 'execute')
    loop
        execute format('revoke all on function %s from public', function_name);
    end loop;
    perform tide.outbox_make_views();
    for standard in
        select kind, r.rolname
          from unnest(array['admin', 'operator', 'reader', 'publisher', 'consumer', 'relay']) as kind
          join pg_roles r on r.rolname = 'tide_' || kind
          join pg_namespace n on n.nspname = 'tide'
         where exists (select from aclexplode(n.nspacl) a where a.grantee = r.oid)
    loop
        perform tide.grant_rights(standard.kind, standard.rolname);
    end loop;
end $$;
