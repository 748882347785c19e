insert into bench.$table (outbox_id, id, created_at, size, key, headers, payload)
values (7, nextval('bench.ids'), clock_timestamp(), 200, 'k', '{}', '$payload');
