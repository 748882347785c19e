insert into tide.message (outbox_id, id, size, key, headers, payload)
values ($outbox_id, nextval('tide.message_${outbox_id}_ids'), 200, 'k', '{}', '$payload');
