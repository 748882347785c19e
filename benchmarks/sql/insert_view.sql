insert into tide_outbox.$outbox (key, payload) values ('k', '$payload');
