-- The horizon of an outbox: up to which id it is complete. Why: see publish.sql.

-- The two reads are separate statements, in this order; the rows must be read in a later one. Volatile: in READ COMMITTED each
-- statement below sees the present. A mark that is a little above top was taken after top was read, and its ids are above top: it
-- holds nothing back.
--
-- Where no publisher is open, the last id is read once more. A publisher that saw the bell silent may have taken its id after
-- top was read, and have ended before the marks were: who sleeps on that would sleep over its message. If the last id has not
-- moved there was none. While it moves all the time there are messages, or more to look for: then one counts as open.
create or replace function tide.outbox_horizon(outbox_id int, out horizon bigint, out open_publishers int)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    ids     regclass := (select o.ids from tide.outbox o where o.outbox_id = outbox_horizon.outbox_id);
    top     bigint := coalesce(pg_sequence_last_value(ids), 0);
    present bigint;
begin
    for look in 1 .. 3 loop
        select greatest(coalesce(top - max(marks.behind) filter (where marks.behind < 2130706432), top), 0), count(*)
          into horizon, open_publishers
          from (select (top - m.key) & 2147483647 as behind
                  from tide.mark m
                 where m.publishes and m.class = tide.lock_class(outbox_horizon.outbox_id)) marks;
        exit when open_publishers > 0;
        present := coalesce(pg_sequence_last_value(ids), 0);
        exit when present = top;
        if look < 3 then
            top := present;
        else
            open_publishers := 1;
        end if;
    end loop;
    perform tide.see_partitions(ids);
end $$;

create or replace function tide.outbox_oldest_publisher_seconds(outbox_id int) returns float8
language sql volatile security definer set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(extract(epoch from clock_timestamp() - min(coalesce(a.xact_start, x.prepared))), 0)::float8
      from tide.mark m
      left join pg_stat_activity a on a.pid = m.pid
      left join pg_locks t on m.pid is null and t.locktype = 'transactionid' and t.virtualtransaction = m.virtualtransaction
      left join pg_prepared_xacts x on x.transaction = t.transactionid
     where m.publishes and m.class = tide.lock_class(outbox_oldest_publisher_seconds.outbox_id);
end;
comment on function tide.outbox_oldest_publisher_seconds is 'How long the oldest transaction that still publishes is open; 0 if there is none.';
