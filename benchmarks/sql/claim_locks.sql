begin;
select coalesce(array_agg(i.event_id), '{}') as ids, array_agg(i.payload) as payloads
  from (select event_id, payload from bench.$table where processed_at is null
         order by inbox_seq limit $batch for update skip locked) i \gset
update bench.$table set processed_at = now() where event_id = any (:ids);
commit;
