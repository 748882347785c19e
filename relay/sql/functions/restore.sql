-- After a restore to an earlier time: ids that the world has seen are not given again.
--
-- A skip keeps the horizon true: an open publisher's mark still lies below its ids, and one that comes later takes its ids
-- above its mark. But marks are numbers modulo 2^31, so no skip may leave an open publisher that far behind.
--
-- The sequence may be as far behind in a database that was copied without its sequences, as logical replication does: then ids
-- that are stored here are not given again either.

-- The highest id of each of these outboxes that anything stored here names, or that was taken. An id that came again would be
-- swallowed: below an offset, a settled range or a claimed cursor, or as the row of a job that is there.
create or replace function tide.outbox_highest_ids(outbox_ids int[]) returns table (outbox_id int, highest_id bigint)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    part   record;
    stored bigint;
    owners int[] := '{}';
    maxima bigint[] := '{}';
begin
    -- Of thousands of outboxes most are empty: their tables are neither opened nor locked.
    for part in
        select o.outbox_id, i.inhrelid::regclass as log
          from tide.outbox o cross join lateral unnest(tide.outbox_logs(o)) l
          join pg_class c on c.relname = l and c.relnamespace = 'tide'::regnamespace
          join pg_inherits i on i.inhparent = c.oid
         where o.outbox_id = any (outbox_highest_ids.outbox_ids) and pg_relation_size(i.inhrelid) > 0
    loop
        execute format('select max(m.id) from %s m where m.outbox_id = $1', part.log) into stored using part.outbox_id;
        owners := owners || part.outbox_id;
        maxima := maxima || stored;
    end loop;
    -- The last id is read after what is stored was looked up: it is not behind what was taken and stored meanwhile.
    return query
        select o.outbox_id,
               greatest(
                   (select max(m.id) from unnest(owners, maxima) m (owner, id) where m.owner = o.outbox_id),
                   (select max(g.offset_id) from tide.consumer_group g where g.outbox_id = o.outbox_id),
                   (select max(l.last_id) from tide.consumer_group g join tide.consumer_lease l on l.group_id = g.group_id
                     where g.outbox_id = o.outbox_id),
                   (select max(d.message_id) from tide.dead_letter d where d.outbox = o.name),
                   (select max(r.to_id) from tide.replay r where r.outbox_id = o.outbox_id),
                   (select max(l.last_id) from tide.retention_loss l where l.outbox = o.name),
                   case o.kind when 'jobs' then tide.job_highest_id(o.outbox_id) end,
                   pg_sequence_last_value(o.ids), 0)
          from tide.outbox o
         where o.outbox_id = any (outbox_highest_ids.outbox_ids);
end $$;
comment on function tide.outbox_highest_ids is 'The same as tide.outbox_highest_id of several outboxes at once. One that does not exist is left out.';

create or replace function tide.outbox_highest_id(outbox_id int) returns bigint
language sql volatile security definer set search_path = pg_catalog, pg_temp
begin atomic select h.highest_id from tide.outbox_highest_ids(array[outbox_highest_id.outbox_id]) h; end;
comment on function tide.outbox_highest_id is
    'The highest id taken or stored. Above tide.outbox_last_id, the sequence is behind what is stored: relay restored.';

-- The highest id that the state of a queue names.
create or replace function tide.job_highest_id(queue int) returns bigint
language sql volatile set search_path = pg_catalog, pg_temp
begin atomic
    select greatest(
        (select max(greatest(l.cursor_id, l.horizon)) from tide.job_lane l where l.outbox_id = queue),
        (select max(upper(l.ids) - 1) from tide.job_lease l where l.outbox_id = queue),
        (select max(w.id) from tide.job_wait w where w.outbox_id = queue),
        (select max(r.id) from tide.job_running r where r.outbox_id = queue),
        (select max(greatest(d.id, d.replayed_as)) from tide.job_dead d where d.outbox_id = queue),
        (select max(k.id) from tide.job_key k where k.outbox_id = queue),
        (select max(s.id) from tide.job_skip s where s.outbox_id = queue),
        (select max(k.id) from tide.job_kept k where k.outbox_id = queue),
        (select max(f.id) from tide.job_follow f where f.outbox_id = queue),
        (select max(d.id) from tide.job_dependency d where d.outbox_id = queue),
        (select max(d.needs_id) from tide.job_dependency d where d.needs_outbox_id = queue),
        (select max(s.last_id) from tide.job_schedule s where s.outbox_id = queue));
end;

-- Where the ids of an outbox go on after a skip. Not in the default partition, which a quiet outbox would not leave for
-- years: in a partition of which at least half is left, or in one that must be made.
create or replace function tide.outbox_skip_plan(box tide.outbox, margin bigint, out last_id bigint, out first_id bigint, out must_make boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    room_until bigint;
begin
    last_id := tide.outbox_highest_id(box.outbox_id);
    first_id := last_id + margin + 1;
    select p.end_id into room_until from tide.outbox_partitions(box.outbox_id) p
     where p.first_id <= outbox_skip_plan.first_id and outbox_skip_plan.first_id < p.end_id;
    must_make := coalesce(room_until - first_id < box.partition_size / 2, true);
    if must_make then
        first_id := greatest(first_id, tide.outbox_upper(box.outbox_id));
    end if;
end $$;

-- Marks are numbers modulo 2^31. Where no publisher is open there is none to leave behind, however far the sequence was.
create or replace function tide.outbox_skip_check(box tide.outbox, first_id bigint) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    if (select first_id - h.horizon > 2000000000 and h.open_publishers > 0 from tide.outbox_horizon(box.outbox_id) h) then
        raise exception 'the ids of outbox "%" cannot skip so far while a publisher is open', box.name using
            errcode = 'object_not_in_prerequisite_state',
            hint = 'Nothing was changed. End its transaction (relay status says whose it is), or give a smaller margin.';
    end if;
end $$;

create or replace function tide.outbox_skip_ids(outbox text, margin bigint default 1000000, dry_run boolean default false) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $$
declare
    box  tide.outbox := tide.find_outbox(outbox);
    plan record;
begin
    if margin is null or margin not between 1000 and 1000000000 then
        raise exception 'the ids of outbox "%" cannot skip %', box.name, coalesce(margin::text, 'NULL') using
            errcode = 'invalid_parameter_value',
            hint = 'Give a number from 1000 to 1000000000, larger than what was published since the time of the restore.';
    end if;
    if not dry_run then
        perform from tide.outbox o where o.outbox_id = box.outbox_id for no key update;
    end if;
    select * into plan from tide.outbox_skip_plan(box, margin);
    perform tide.outbox_skip_check(box, plan.first_id);
    if dry_run then
        return plan.first_id;
    end if;
    if plan.must_make then
        -- Who has the parent open knows its partitions from before, and would be refused by a new one.
        execute format('lock table tide.%I in access exclusive mode', box.log || '_rest');
        execute format('lock table only tide.%I in access exclusive mode', box.log);
        select * into plan from tide.outbox_skip_plan(box, margin);
        perform tide.outbox_skip_check(box, plan.first_id);
        perform tide.attach_partition(box, plan.first_id);
        perform tide.attach_partition(box, plan.first_id + box.partition_size);
    end if;
    -- The margin is far more than publishers take between the look and this, so it never goes back.
    perform setval(box.ids, greatest(plan.first_id - 1, tide.outbox_last_id(box.outbox_id)));
    perform tide.keep_bell(box.outbox_id);
    return tide.outbox_last_id(box.outbox_id) + 1;
exception when lock_not_available then
    raise exception 'the ids of outbox "%" were not moved: a transaction has its partitions open', box.name using
        errcode = 'lock_not_available',
        hint = 'Nothing was changed. Call it again; relay status says which publisher has been open for long.';
end $$;
comment on function tide.outbox_skip_ids is
    'After a restore to an earlier time: has new messages begin above ids that were given since. Returns the first of them.';

-- Epochs and revisions are numbers of their own: a drain or a program from before the restore must not fit by chance.
create or replace function tide.relay_skip_epochs(margin bigint default 1000000) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
begin
    if margin is null or margin not between 1000 and 1000000000 then
        raise exception 'epochs cannot skip %', coalesce(margin::text, 'NULL') using
            errcode = 'invalid_parameter_value', hint = 'Give a number from 1000 to 1000000000.';
    end if;
    perform setval('tide.revisions', margin + greatest(nextval('tide.revisions'), (select max(p.revision) from tide.pipeline p)));
    return setval('tide.epochs', margin + greatest(nextval('tide.epochs'), (select max(d.epoch) from tide.drain d)));
end $$;
comment on function tide.relay_skip_epochs is
    'After a restore to an earlier time: no drain from before it fits a new one. Returns the highest epoch that was passed over.';

-- A sequence that is behind what its column holds is set above that, and by so much that what others take meanwhile is not taken
-- twice. Inboxes may be tables of others, see table_trust.sql: one that is not to be touched is named, and stays as it is.
create or replace function tide.relay_raise_sequences(dry_run boolean default false)
returns table (sequence text, last_value bigint, stored bigint, problem text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    line  record;
    box   tide.inbox;
    room  constant bigint := 1000;
begin
    for line in
        select c.oid::regclass as relation, a.attname as col, pg_get_serial_sequence(c.oid::regclass::text, a.attname)::regclass as ids,
               null::int as inbox_id
          from pg_class c join pg_attribute a on a.attrelid = c.oid
         where c.relnamespace = 'tide'::regnamespace and c.relkind = 'r' and a.attidentity <> ''
           and c.relowner = (select o.relowner from pg_class o where o.oid = 'tide.outbox'::regclass)
           and not exists (select from tide.inbox i where i.table_schema = 'tide' and i.table_name = c.relname)
         union all
        select to_regclass(tide.inbox_relation(i)), 'inbox_seq', null, i.inbox_id from tide.inbox i
    loop
        begin
            problem := null;
            if line.inbox_id is not null then
                select * into box from tide.inbox i where i.inbox_id = line.inbox_id;
                sequence := format('inbox %s', box.name);
                perform tide.inbox_guard(box, 'access share');
                line.ids := pg_get_serial_sequence(tide.inbox_relation(box), line.col)::regclass;
                continue when line.ids is null;
            end if;
            sequence := line.ids::text;
            last_value := coalesce(pg_sequence_last_value(line.ids), 0);
            execute format('select max(t.%I) from only %s t', line.col, line.relation) into stored;
            continue when coalesce(stored, 0) <= last_value;
            if not dry_run then
                perform setval(line.ids, stored + room);
            end if;
        exception when insufficient_privilege or invalid_table_definition or wrong_object_type or undefined_column
                       or lock_not_available then
            last_value := null;
            stored := null;
            problem := sqlerrm;
        end;
        return next;
    end loop;
end $$;
comment on function tide.relay_raise_sequences is
    'After a copy without sequences: sets each that is behind the column it numbers above it, in tide and in inboxes. The row of each.';
