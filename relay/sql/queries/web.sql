-- Receiving webhooks; rows are written by `inbox_write` of drains.sql.

-- name: api_listen
-- What the API hears: changed configurations.
listen tide_relay_config

-- name: api_lock_timeout
-- How long a batch waits for its inbox, whose owner may have locked it. Of the transaction: a pooler may share the session.
select set_config('lock_timeout', '1s', true)

-- name: api_look
-- After writing rows of which some were there already: which of them are new, and which are what is stored.
select is_new, is_same from tide.inbox_look(%(inbox)s, %(event_ids)b::text[], %(payloads)b::text[])

-- name: pipelines
-- Every pipeline, as configured; as text, because jsonb can hold what its reader cannot.
select p.name, p.direction, p.enabled, p.config::text as config, p.revision, p.invalid_reason, g.group_id, o.outbox_id, o.name as outbox,
       i.name as inbox
  from tide.pipeline p
  left join tide.consumer_group g on g.group_id = p.group_id
  left join tide.outbox o on o.outbox_id = g.outbox_id
  left join tide.inbox i on i.inbox_id = p.inbox_id
