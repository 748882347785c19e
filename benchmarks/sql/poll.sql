select id, key, payload, headers, created_at from tide.poll_outbox('workers', 'worker-' || :client_id, $batch, 60) \aset
select tide.commit_offset('workers', 'worker-' || :client_id, :id);
