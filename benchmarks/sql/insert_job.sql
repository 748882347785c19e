insert into tide.job (outbox_id, id, size, name, payload)
values ($outbox_id, nextval('tide.job_${outbox_id}_ids'), 200, 'send', '$payload');
