with written as (
    insert into tide.message (outbox_id, id, size, key, headers, payload)
    values ($outbox_id, nextval('tide.message_${outbox_id}_ids'), 200, 'k', '{}', '$payload') returning id
)
select pg_notify('bench_notify', '') from written;
