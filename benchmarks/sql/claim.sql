select coalesce(array_agg(event_id), '{}') as ids, array_agg(payload) as payloads
  from tide.inbox_claim('$table', 'worker-' || :client_id, $batch, 60) \gset
select tide.inbox_mark_processed('$table', :ids, 'worker-' || :client_id);
