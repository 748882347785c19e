insert into tide_outbox.$outbox (key, payload) select 'k', p from unnest(array_fill('$payload'::jsonb, array[$messages])) p;
