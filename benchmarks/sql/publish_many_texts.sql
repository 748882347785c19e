select tide.outbox_publish_many('$outbox', array_fill(replace('$payload', 'c-000421', 'c-' || :client_id), array[$messages])::jsonb[], array_fill('k'::text, array[$messages]));
