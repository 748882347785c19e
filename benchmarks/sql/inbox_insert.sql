insert into public.letters (event_id, event_type, source, aggregate_id, event_sequence, payload, headers)
values (gen_random_uuid()::text, 'order', 'bench', 'customer-7', 1, '$payload', '{}') on conflict do nothing;
