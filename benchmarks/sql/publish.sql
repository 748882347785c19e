select tide.outbox_publish('$outbox', '$payload', '{}', 'k');
