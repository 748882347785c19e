with claimed as (
    update bench.$table set claimed_by = 'worker-' || :client_id, available_at = now() + interval '1 minute'
     where event_id = any (array(
        select event_id from bench.$table where processed_at is null and retry_count < 3 and available_at is null
         order by inbox_seq limit $batch for update skip locked))
    returning event_id, payload
)
select coalesce(array_agg(event_id), '{}') as ids, array_agg(payload) as payloads from claimed \gset
update bench.$table set processed_at = now(), claimed_by = null, available_at = null
 where event_id = any (:ids) and claimed_by = 'worker-' || :client_id;
