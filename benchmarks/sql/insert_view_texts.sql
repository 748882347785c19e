insert into tide_outbox.$outbox (key, payload) select 'k', p::jsonb from unnest(array_fill(replace('$payload', 'c-000421', 'c-' || :client_id), array[$messages])) p;
