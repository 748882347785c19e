-- The roles of tide-relay, made where they are missing, and their rights, granted again. May be run again at any time, by
-- the owner of the schema; where a role is missing, with CREATEROLE. Give them to the roles that log in: grant tide_relay to relay;

do $roles$
declare
    missing name;
begin
    for missing in
        select w.name from unnest(array['tide_admin', 'tide_publisher', 'tide_relay', 'tide_operator', 'tide_reader',
                                        'tide_consumer']::name[]) as w (name)
         where not exists (select from pg_catalog.pg_roles r where r.rolname = w.name)
    loop
        begin
            execute format('create role %I nologin', missing);
        exception
            when duplicate_object or unique_violation then
                null;  -- roles are the server's, and another database was first
            when insufficient_privilege then
                raise exception 'role % is missing, and % may not create it', missing, current_user using
                    errcode = 'insufficient_privilege',
                    hint = 'Let a role with CREATEROLE create tide_admin, tide_publisher, tide_relay, tide_operator, '
                           'tide_reader and tide_consumer, and then run relay migrate --roles again.';
        end;
    end loop;
end $roles$;

select tide.grant_admin('tide_admin'), tide.grant_publisher('tide_publisher'), tide.grant_relay('tide_relay'),
       tide.grant_operator('tide_operator'), tide.grant_reader('tide_reader'), tide.grant_consumer('tide_consumer');
