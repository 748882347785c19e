select tide.outbox_publish_many('$outbox', array_fill('$payload'::jsonb, array[$messages]), array_fill('k'::text, array[$messages]));
