-- Processing an inbox in Python: `relay.inbox`.

-- name: inbox_listen
-- A consumer of an inbox is notified of new messages.
listen tide_inbox

-- name: inbox_claim
-- Leases messages of an inbox to a worker.
select * from tide.inbox_claim(%(inbox)s, %(worker)s, %(batch_size)s::int, %(visibility_seconds)s::int)

-- name: inbox_mark_failed
-- Counts a failure of a message that the worker still holds; returns what becomes of it.
select tide.inbox_mark_failed(%(inbox)s, %(event_id)s, %(error)s, %(worker)s)

-- name: inbox_release
-- Gives back what the worker has not begun.
select tide.inbox_release(%(inbox)s, %(event_ids)s::text[], %(worker)s)
