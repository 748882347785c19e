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

-- name: hooks
-- The pipelines that receive webhooks, without their configurations.
select p.name, p.revision, p.enabled, i.name as inbox
  from tide.pipeline p join tide.inbox i on i.inbox_id = p.inbox_id
 where p.direction = 'reverse' and p.config ->> 'source_type' = 'webhook'
 order by p.name collate "C"

-- name: hook_configurations
-- These pipelines, as configured; as text, because jsonb can hold what its reader cannot.
select p.name, p.revision, p.config::text as config from tide.pipeline p where p.name = any(%(names)s)
