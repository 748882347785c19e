-- A view of each outbox, tide_outbox.<name>, by which INSERT publishes. It costs least: the mark,
-- the look at the bell and the id are the default of its column id, and the limits are its check option, so PostgreSQL plans and runs
-- all of it with the statement.
--
-- Its rows are those of tide.message: of the table of this outbox, a statement would know the partitions from its beginning. So it learns
-- of them with its first row, after the default of its id, see tide.see_partitions; and PostgreSQL checks the bounds of a partition whenever that is the target itself.
--
-- PostgreSQL asks for the rights of who publishes: INSERT on the columns key, payload and headers, SELECT on id (for RETURNING), USAGE on
-- the sequence of the ids, SELECT on that of the bell. With these a role can publish, and take ids without publishing, which a
-- publish that is rolled back does too. So no one can give an id, or a time, of their own. A guarded outbox asks as for a call.

-- Whether a message that has just been inserted, and that is not obviously right, is. Rows that are only read are: then no
-- transaction has a number.
create or replace function tide.outbox_fits(outbox_id int, payload jsonb, headers jsonb, key text) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    box  tide.outbox;
    size bigint;
begin
    if pg_current_xact_id_if_assigned() is null then
        return true;
    end if;
    select * into box from tide.outbox o where o.outbox_id = outbox_fits.outbox_id;
    if payload is null or headers is null then
        raise exception 'the % of a message for outbox "%" must not be null', case when payload is null then 'payload' else 'headers' end, box.name using
            errcode = 'not_null_violation',
            hint = case when payload is null then 'The null of JSON is ''null''::jsonb. Nothing was published.'
                        else 'Leave the column out, or give ''{}''. Nothing was published.' end;
    end if;
    size := tide.outbox_measure(box.name, payload, headers, key);
    if size > box.max_payload_bytes or jsonb_typeof(headers) <> 'object' then
        perform tide.outbox_refuse(box.name, headers, size);
    end if;
    return true;
end $$;

-- PostgreSQL cuts names of more than 63 characters: an outbox with a longer one has no view. The check is a few comparisons for
-- nearly each message, and has the limit as it is now. The default of id takes one as tide.outbox_marked says, written out: a statement that is not
-- prepared would read and inline that function each time; the size of a message is not stored, readers see tide.message_size.
create or replace function tide.outbox_make_view(box tide.outbox) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if box.kind <> 'messages' or length(box.name) > 63 then
        return;
    end if;
    execute format($view$
        create or replace view tide_outbox.%1$I as
            select id, key, payload, headers, created_at, outbox_id
              from tide.message
             where outbox_id = %2$s
               and case when pg_column_size(payload) < %3$s and octet_length(concat(payload, headers, key)) <= %3$s
                             and payload is not null and headers @> '{}' then true
                        else tide.outbox_fits(%2$s, payload, headers, key) end
              with check option$view$, box.name, box.outbox_id, box.max_payload_bytes);
    execute format($defaults$
        alter table tide_outbox.%1$I
            alter column id set default nextval(case
                when coalesce(current_setting(%4$L, true), '') = ''
                     and set_config(%4$L, concat(pg_current_xact_id(), ' 0', pg_sequence_last_value(%5$L)), true) <> ''
                     and pg_try_advisory_xact_lock_shared(%3$s, (coalesce(pg_sequence_last_value(%5$L), 0) & 2147483647)::int)
                     and pg_sequence_last_value(%6$L) = 1 then %5$L::regclass
                else tide.outbox_more(%2$s, %3$s, %4$L, %5$L, %6$L, %7$s) end),
            alter column headers set default '{}', alter column outbox_id set default %2$s$defaults$,
        box.name, box.outbox_id, box.mark_class, box.mark_setting, box.ids, box.bell, box.partition_size / 100);
    perform tide.outbox_grant_views(r.rolname, array[box])
      from pg_proc p cross join aclexplode(p.proacl) a join pg_roles r on r.oid = a.grantee
     where p.oid in ('tide.publish_anywhere()'::regprocedure, to_regprocedure(format('tide.publish_to_%s()', box.outbox_id)))
       and a.grantee <> p.proowner;
end $$;

-- What a role needs to publish by these views.
create or replace function tide.outbox_grant_views(role name, boxes tide.outbox[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    views text;
    ids   text;
    bells text;
begin
    select string_agg(v.oid::regclass::text, ', '), string_agg(b.ids::text, ', '), string_agg(b.bell::text, ', ') into views, ids, bells
      from unnest(boxes) b join pg_class v on v.relname = b.name and v.relnamespace = 'tide_outbox'::regnamespace;
    execute format('grant usage on schema tide_outbox to %I', role);
    if views is not null then
        execute format('grant insert (key, payload, headers), select (id) on %s to %I', views, role);
        execute format('grant usage on sequence %s to %I', ids, role);
        execute format('grant select on sequence %s to %I', bells, role);
    end if;
end $$;

create or replace function tide.outbox_revoke_view(role name, box tide.outbox) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if to_regclass(format('tide_outbox.%I', box.name)) is not null then
        execute format('revoke insert (key, payload, headers), select (id) on tide_outbox.%I from %I', box.name, role);
        execute format('revoke usage on sequence %s from %I', box.ids, role);
        execute format('revoke select on sequence %s from %I', box.bell, role);
    end if;
end $$;

-- An outbox whose row was changed by its owner. The view keeps the rights that were given to it.
create or replace function tide.outbox_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if length(new.name) > 63 then
        execute format('drop view if exists tide_outbox.%I', old.name);
    elsif new.name <> old.name then
        execute format('alter view if exists tide_outbox.%I rename to %I', old.name, new.name);
    end if;
    perform tide.outbox_make_view(new);
    return null;
end $$;
create or replace trigger outbox_changed after update on tide.outbox for each row
    when (old.name <> new.name or old.partition_size <> new.partition_size or old.max_payload_bytes <> new.max_payload_bytes)
    execute function tide.outbox_changed();

-- Views that a dump of the schema tide alone did not hold.
create or replace function tide.outbox_make_views() returns void
language sql volatile set search_path = pg_catalog, pg_temp
return (select count(tide.outbox_make_view(o)) from tide.outbox o
         where o.kind = 'messages' and length(o.name) <= 63
           and not exists (select from pg_class v where v.relname = o.name and v.relnamespace = (select n.oid from pg_namespace n where n.nspname = 'tide_outbox')));
