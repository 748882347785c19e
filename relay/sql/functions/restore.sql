-- After a restore to an earlier time: ids that the world has seen are not given again.
--
-- A skip keeps the horizon true: an open publisher's mark still lies below its ids, and one that comes later takes its ids
-- above its mark. But marks are numbers modulo 2^31, so no skip may leave an open publisher that far behind.

-- Where the ids of an outbox go on after a skip. Not in the default partition, which a quiet outbox would not leave for
-- years: in a partition of which at least half is left, or in one that must be made.
create or replace function tide.outbox_skip_plan(box tide.outbox, margin bigint, out last_id bigint, out first_id bigint, out must_make boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    room_until bigint;
begin
    last_id := tide.outbox_last_id(box.outbox_id);
    first_id := last_id + margin + 1;
    select p.end_id into room_until from tide.outbox_partitions(box.outbox_id) p
     where p.first_id <= outbox_skip_plan.first_id and outbox_skip_plan.first_id < p.end_id;
    must_make := coalesce(room_until - first_id < box.partition_size / 2, true);
    if must_make then
        first_id := greatest(first_id, tide.outbox_upper(box.outbox_id));
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
    if plan.first_id - (select h.horizon from tide.outbox_horizon(box.outbox_id) h) > 2000000000 then
        raise exception 'the ids of outbox "%" cannot skip so far while a publisher is open', box.name using
            errcode = 'object_not_in_prerequisite_state',
            hint = 'Nothing was changed. End its transaction (relay status says whose it is), or give a smaller margin.';
    end if;
    if dry_run then
        return plan.first_id;
    end if;
    if plan.must_make then
        -- Who has the parent open knows its partitions from before, and would be refused by a new one.
        execute format('lock table tide.%I in access exclusive mode', box.log || '_rest');
        execute format('lock table only tide.%I in access exclusive mode', box.log);
        select * into plan from tide.outbox_skip_plan(box, margin);
        perform tide.attach_partition(box, plan.first_id);
        perform tide.attach_partition(box, plan.first_id + box.partition_size);
    end if;
    -- The margin is far more than publishers take between the look and this, so it never goes back.
    perform setval(box.ids, greatest(plan.first_id - 1, tide.outbox_last_id(box.outbox_id)));
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
    perform setval('tide.revisions', nextval('tide.revisions') + margin);
    return setval('tide.epochs', nextval('tide.epochs') + margin);
end $$;
comment on function tide.relay_skip_epochs is
    'After a restore to an earlier time: no drain from before it fits a new one. Returns the highest epoch that was passed over.';
