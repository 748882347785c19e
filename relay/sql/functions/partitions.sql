-- The partitions of outboxes: made ahead of need, and dropped when they are empty. An outbox of jobs has two logs, of jobs and of
-- their attempts, whose partitions come and go together.

-- The first id above the range partitions of an outbox, by the catalogs; tide.outbox.partitions_end remembers it.
create or replace function tide.outbox_upper(outbox_id int) returns bigint
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(max(substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \(''?(\d+)''?\)')::bigint), 0)
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = (select format('tide.%I', o.log)::regclass from tide.outbox o where o.outbox_id = outbox_upper.outbox_id);
end;

create or replace function tide.outbox_needs_partition(outbox_id int) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select o.partitions_end <= tide.outbox_last_id(o.outbox_id) + o.partition_size
      from tide.outbox o where o.outbox_id = outbox_needs_partition.outbox_id;
end;

-- The tables of an outbox whose partitions come and go together: its log, and for jobs their attempts, of the same ids.
create or replace function tide.outbox_logs(box tide.outbox) returns text[]
language sql immutable
return case (box).kind when 'jobs' then array[(box).log, 'job_attempt_' || (box).outbox_id] else array[(box).log] end;

-- The table that the logs of all outboxes of a kind are partitions of.
create or replace function tide.log_root(log text) returns text
language sql immutable
return regexp_replace(log, '_[0-9]+$', '');

-- The table that a log is a partition of: those of a hundred outboxes, by their numbers, are together.
create or replace function tide.log_parent(log text) returns text
language sql immutable
return regexp_replace(log, '_[0-9]+$', '_hundred_') || substring(log from '[0-9]+$')::int / 100;

-- The range partition whose first id is `first_id`. Made apart and then attached: unlike CREATE ... PARTITION OF,
-- ATTACH lets publishers and readers of the parent go on.
create or replace function tide.attach_partition(box tide.outbox, first_id bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    parent text;
    part   text;
begin
    foreach parent in array tide.outbox_logs(box) loop
        part := format('%s_%s', parent, first_id);
        execute format('create table tide.%I (like tide.%I including defaults including constraints)', part, parent);
        execute format('alter table tide.%I attach partition tide.%I for values from (%s) to (%s)',
                       parent, part, first_id, first_id + box.partition_size);
    end loop;
    update tide.outbox o set partitions_end = tide.outbox_upper(o.outbox_id) where o.outbox_id = box.outbox_id;
end $$;

-- Makes sure that at least one whole unused partition lies above the highest id. The scheduler calls it on a timer.
-- Ids beyond the last partition fall into the default partition, so that publishing never depends on it.
-- Returns the number of partitions made. Stops after lock_timeout, or when publishers are faster: it is called again
-- soon.
--
-- Publishers that write to the default partition wait behind an ATTACH that waits: not for half a second. How far they
-- are is looked at once nothing can be written there: while we waited for that, they took ids.
--
-- A publisher that knows the partitions from before the ATTACH sends ids of the new range to the default partition, where
-- PostgreSQL then refuses them, and with them its transaction. So none reaches the new range before it knows it: the range
-- begins well above the last id, also when we are done; our commit waits for no standby; the later publishes of a transaction
-- look again (tide.see_partitions), and one of many messages keeps us away (tide.outbox_keep_partitions).
create or replace function tide.outbox_extend(outbox text) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    box   tide.outbox := tide.find_outbox(outbox);
    last  bigint;
    upper bigint;
    first bigint;
    made  int := 0;
begin
    -- By the catalogs: whatever someone did to the partitions by hand, this makes up for it.
    upper := tide.outbox_upper(box.outbox_id);
    if upper = box.partitions_end and upper > tide.outbox_last_id(box.outbox_id) + box.partition_size then
        return 0;
    end if;
    perform from tide.outbox o where o.outbox_id = box.outbox_id for no key update;
    upper := tide.outbox_upper(box.outbox_id);
    if upper > tide.outbox_last_id(box.outbox_id) + box.partition_size then
        update tide.outbox o set partitions_end = upper where o.outbox_id = box.outbox_id and o.partitions_end <> upper;
        return 0;
    end if;
    execute format('lock table %s in access exclusive mode',
                   (select string_agg(format('tide.%I', l || '_rest'), ', ') from unnest(tide.outbox_logs(box)) l));
    last := tide.outbox_last_id(box.outbox_id);
    -- Ids go to the default partition already, or soon: the next range starts well above them. One that publishers reach
    -- while it is attached would refuse their rows.
    if last + box.partition_size / 2 >= upper then
        upper := (last / box.partition_size + 2) * box.partition_size;
    end if;
    first := upper;
    while made = 0 or upper <= last + box.partition_size loop
        perform tide.attach_partition(box, upper);
        upper := upper + box.partition_size;
        made := made + 1;
    end loop;
    if tide.outbox_last_id(box.outbox_id) + box.partition_size / 4 >= first then
        raise exception 'publishers of outbox "%" came near the new partition while it was made', box.name using
            errcode = 'lock_not_available', hint = 'Nothing was changed, and they go on. It is made again soon.';
    end if;
    if current_setting('synchronous_commit') not in ('off', 'local') then
        perform set_config('synchronous_commit', 'local', true);
    end if;
    return made;
end $$;

-- Called before a statement that publishes so many messages. It knows the partitions from its beginning, and could reach one
-- that is attached meanwhile: if they are many, none is, until the transaction ends.
create or replace function tide.outbox_keep_partitions(box tide.outbox, messages int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if messages > box.partition_size / 100 then
        execute format('lock table tide.%I in row exclusive mode', box.log || '_rest');
    end if;
end $$;

-- The partitions of all logs of an outbox that hold the same ids as one of its log.
create or replace function tide.outbox_twins(box tide.outbox, part regclass) returns regclass[]
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select array_agg(format('tide.%I', l.log || substr(c.relname, length((box).log) + 1))::regclass order by l.number)
      from pg_class c cross join unnest(tide.outbox_logs(box)) with ordinality as l (log, number)
     where c.oid = part;
end;

create or replace function tide.outbox_partitions(outbox_id int) returns table (part regclass, first_id bigint, end_id bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select c.oid::regclass, substring(b.bound from E'FROM \\(''?(\\d+)')::bigint, substring(b.bound from E'TO \\(''?(\\d+)')::bigint
      from pg_inherits i
      join pg_class c on c.oid = i.inhrelid
      cross join lateral (select pg_get_expr(c.relpartbound, c.oid) as bound) b
     where i.inhparent = (select format('tide.%I', o.log)::regclass from tide.outbox o where o.outbox_id = outbox_partitions.outbox_id)
     order by 2
$$;
comment on function tide.outbox_partitions is 'The partitions of the log of an outbox in the order of their ids, the default partition (null) last.';

create or replace function tide.newest_message(part regclass, outbox_id int, out id bigint, out created_at timestamptz)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_sort = off set enable_seqscan = off set enable_bitmapscan = off as $$
begin
    execute format('select m.id, m.created_at from %s m where m.outbox_id = $1 order by m.id desc limit 1', part)
       into id, created_at using outbox_id;
end $$;

create or replace function tide.lock_holders(relation regclass) returns text[]
language sql volatile security definer set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(array_agg(l.virtualtransaction), '{}')
      from pg_locks l
     where l.locktype = 'relation' and l.relation = lock_holders.relation and l.pid is distinct from pg_backend_pid()
       and l.database = (select d.oid from pg_database d where d.datname = current_database());
end;

-- Whether the same transaction holds a lock on a table now and a moment later. Both looks need no right to see whose it is.
-- The moment is a little shorter than the wait that follows: where short transactions overlap all the time, none is in the way.
create or replace function tide.held_for_long(relation regclass) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    holders text[] := tide.lock_holders(relation);
begin
    if holders = '{}' then
        return false;
    end if;
    perform pg_sleep(0.04);
    return holders && tide.lock_holders(relation);
end $$;

-- Drops empty partitions; false if another transaction is in the way. The parent comes last: until then publishers are not concerned.
create or replace function tide.outbox_drop_partitions(box tide.outbox, parts regclass[]) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    logs text := (select string_agg(format('tide.%I', l), ', ' order by n) from unnest(tide.outbox_logs(box)) with ordinality as u (l, n));
    rest text := array_to_string(tide.outbox_twins(box, format('tide.%I', box.log || '_rest')::regclass), ', ');
    gone text := (select string_agg(t::text, ', ') from unnest(parts) p cross join unnest(tide.outbox_twins(box, p)) t);
begin
    if tide.held_for_long(format('tide.%I', box.log)::regclass) then
        return false;
    end if;
    execute format('lock table %s, %s in access exclusive mode nowait', gone, rest);
    execute format('lock table only %s in access exclusive mode', replace(logs, ', ', ', only '));
    execute format('drop table %s', gone);
    return true;
exception when lock_not_available then
    return false;
end $$;

-- Ends the partition in use at the last id, if its oldest message could go were it not for the younger ones: else the
-- messages of a quiet outbox, which takes years to fill a partition, would stay for years. It is detached and attached again
-- with a nearer end, and the rest of its range becomes a new partition. Publishers wait meanwhile, so only a small one is cut.
create or replace function tide.outbox_cut(box tide.outbox) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_sort = off set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    logs   text[] := tide.outbox_logs(box);
    rest   regclass := format('tide.%I', box.log || '_rest')::regclass;
    used   record;
    twins  regclass[];
    oldest record;
    cut_id bigint;
begin
    cut_id := tide.outbox_last_id(box.outbox_id) + 1;
    select * into used from tide.outbox_partitions(box.outbox_id) p where p.first_id < cut_id and cut_id < p.end_id;
    if not found or pg_relation_size(used.part) > 32 * 1024 * 1024 then
        return false;
    end if;
    execute format('select m.id, m.created_at from %s m where m.outbox_id = $1 order by m.id limit 1', used.part)
       into oldest using box.outbox_id;
    if oldest.id is null or oldest.created_at > clock_timestamp() - interval '1 hour'
       or not tide.outbox_may_go(box, oldest.id, oldest.created_at)
       or tide.newest_message(rest, box.outbox_id) is not null or tide.held_for_long(format('tide.%I', box.log)::regclass) then
        return false;
    end if;
    execute format('lock table only %s in access exclusive mode', (select string_agg(format('tide.%I', l), ', only ') from unnest(logs) l));
    -- No publisher that has taken an id is still open now: one that takes an id from here on waits for us before it is stored.
    twins := tide.outbox_twins(box, used.part);
    execute format('lock table %s in access exclusive mode nowait', array_to_string(twins || tide.outbox_twins(box, rest), ', '));
    cut_id := tide.outbox_last_id(box.outbox_id) + 1;
    if cut_id >= used.end_id then
        return false;
    end if;
    for n in 1 .. cardinality(logs) loop
        execute format('alter table tide.%I detach partition %s', logs[n], twins[n]);
        execute format('alter table tide.%I attach partition %s for values from (%s) to (%s)', logs[n], twins[n], used.first_id, cut_id);
        execute format('create table tide.%I (like tide.%I including defaults including constraints)', logs[n] || '_' || cut_id, logs[n]);
        execute format('alter table tide.%I attach partition tide.%I for values from (%s) to (%s)',
                       logs[n], logs[n] || '_' || cut_id, cut_id, used.end_id);
    end loop;
    return true;
exception when lock_not_available then
    return false;
end $$;
