-- Which database this is, for all that databases share: the queues of a broker, the transactional ids of Kafka.
--
-- A row that relay migrate made is not enough: dumps, templates and copies of files have it too. With the identifier of the
-- cluster and the OID of the database, what was restored from a dump or made from a template is a database of its own, and
-- a standby that is promoted stays the one it was. Only a copy of the files cannot be distinguished: database_identity_renew.
create or replace function tide.database_identity() returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    cluster text;
begin
    begin
        select c.system_identifier into cluster from pg_control_system() c;
    exception when insufficient_privilege or undefined_function or feature_not_supported then
        null;  -- a service that withholds it; then the row and the OID have to do
    end;
    return (select substr(encode(sha256(convert_to(concat_ws('/', i.id, cluster, d.oid), 'UTF8')), 'hex'), 1, 16)
              from tide.identity i, pg_database d
             where d.datname = current_database());
end $$;
comment on function tide.database_identity is 'Which database this is: part of the names of queues. 16 hexadecimal digits.';

create or replace function tide.database_identity_renew() returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
begin
    update tide.identity set id = gen_random_uuid(), since = clock_timestamp();
    perform pg_notify('tide_relay_config', '');
    return tide.database_identity();
end $$;
comment on function tide.database_identity_renew is
    'For a copy of a database whose original goes on: gives it an identity of its own, so that it shares no queue with it.';
