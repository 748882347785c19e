-- The bell of an outbox: publishers NOTIFY only if a consumer group sleeps. A group arms its bell, commits, and looks again: a
-- publisher that saw the bell silent had its mark before the bell was armed, so the second look sees the mark or the row.
--
-- What each group wants is a row of tide.bell. What publishers look at is the last value of a sequence, which is the same for
-- every snapshot and costs no table scan. It says what a publish has to ask first:
--   1  nothing
--   2  whether to NOTIFY: a group sleeps
--   3  that, and whether the outbox is enabled and this role may publish
-- A sequence is written at once, whatever becomes of the transaction. So one that is not committed may have publishers ask in
-- vain, but may not keep them from asking: the value goes down only under a lock on the row of the outbox that is kept until the
-- commit, by who then finds that all rows, as committed, want nothing.

-- Who arms a bell needs no more than that no one lowers the value meanwhile: so those who do are not in each other's way.
create or replace function tide.keep_bell(outbox_id int, arms boolean default false) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    box    tide.outbox;
    wanted bigint;
    found_value bigint;
begin
    if not exists (select from tide.outbox o where o.outbox_id = keep_bell.outbox_id) then
        return;
    end if;
    if arms then
        select * into box from tide.outbox o where o.outbox_id = keep_bell.outbox_id for share;
    else
        select * into box from tide.outbox o where o.outbox_id = keep_bell.outbox_id for no key update;
    end if;
    wanted := case when box.kind = 'messages' and box.guarded or not box.enabled then 3
                   when arms or exists (select from tide.bell b where b.outbox_id = box.outbox_id and b.armed) then 2
                   else 1 end;
    found_value := coalesce(pg_sequence_last_value(box.bell), 0);
    -- An older snapshot may not show what another group wants by now.
    if wanted > found_value or not arms and wanted < found_value and current_setting('transaction_isolation') = 'read committed' then
        perform setval(box.bell, wanted);
    end if;
end $$;
comment on function tide.keep_bell is 'Has publishers look at what the rows of an outbox and its groups say.';

create or replace function tide.bell_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform tide.keep_bell(coalesce(new.outbox_id, old.outbox_id), coalesce((to_jsonb(new) -> 'armed')::boolean, false));
    return null;
end $$;
create or replace trigger bell_changed after insert or update or delete on tide.bell for each row execute function tide.bell_changed();
create or replace trigger bell_changed after update on tide.outbox for each row
    when (old.enabled <> new.enabled or old.guarded <> new.guarded) execute function tide.bell_changed();

-- Whether publishers look: a row that says so is not enough, where a transaction that silenced the bell was rolled back.
create or replace function tide.bell_rings(outbox_id int) returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp
return (select pg_sequence_last_value(o.bell) > 1 from tide.outbox o where o.outbox_id = bell_rings.outbox_id);

-- Whether a publisher that has just taken its mark must NOTIFY. A snapshot that is older than the mark may not show a
-- bell armed since, so REPEATABLE READ and SERIALIZABLE always do. PREPARE TRANSACTION refuses a transaction that has
-- executed NOTIFY: a publisher that sets tide.two_phase leaves its messages to the timer. With no scheduler to hear it a
-- NOTIFY would only make publishers wait for each other; the next scheduler looks at everything when it starts.
create or replace function tide.outbox_asleep(outbox_id int) returns boolean
language sql volatile
return coalesce(current_setting('tide.two_phase', true), '') <> 'on'
   and (current_setting('transaction_isolation') <> 'read committed'
        or exists (select from tide.bell b where b.outbox_id = outbox_asleep.outbox_id and b.armed)
           and exists (select from tide.scheduler s where s.seen_at > clock_timestamp() - interval '15 seconds'));
