-- Maintenance: one worker at a time removes what is old.

-- name: maintenance_begin
-- Takes the turn that a scheduler asked for; anyone who can write to the broker can send a message that says so. No row: drop it.
update tide.chore set asked = false where name = 'maintenance' and asked returning true

-- name: maintenance_outbox_ids
-- Every outbox.
select o.outbox_id from tide.outbox o

-- name: maintenance_outboxes
-- Those of these outboxes that retention has something to do with. Not where nothing is stored, and no id was given since that was
-- seen; nor where the oldest message is younger than four fifths of what it is kept for, from when retention warns. But always
-- where a group is stopped, or was held back. To see that costs a hundredth of looking.
select o.name
  from tide.outbox o
  join tide.outbox_last_ids(%(outbox_ids)s::int[]) e on e.outbox_id = o.outbox_id
 where o.kind <> 'messages'
    or o.retained_id <> e.last_id
       and (coalesce(o.oldest_at + 0.8 * make_interval(hours => o.retention_hours) <= clock_timestamp(), true)
            or exists (select from tide.consumer_group g left join tide.pipeline p on p.group_id = g.group_id
                        where g.outbox_id = o.outbox_id and (g.polled or not p.enabled or p.invalid_reason is not null)))
    or exists (select from tide.consumer_group g join tide.hold h on h.group_id = g.group_id where g.outbox_id = o.outbox_id)

-- name: maintenance_inboxes
-- Every inbox.
select i.name from tide.inbox i

-- name: outbox_retain
-- Removes what is settled and old of one outbox.
select truncated, dropped, lost, busy, more, warning from tide.outbox_retain(%(name)s)

-- name: inbox_retain
-- Removes old rows of one inbox, at most so many.
select tide.inbox_retain(%(name)s, %(max_rows)s)

-- name: dead_letter_retain
-- Removes old dead letters, at most so many.
select tide.dead_letter_retain(%(max_rows)s)

-- name: config_history_retain
-- Removes old history of configurations, at most so many rows.
select tide.config_history_retain(%(max_rows)s)

-- name: stream_clean
-- Removes what every stream table has seen of the changes of its sources, and the old history of refreshes.
select tide.stream_clean(%(max_rows)s)

-- name: consumers_reap
-- Removes dead consumers; what they hold goes to others.
select tide.consumers_reap()

-- name: maintenance_done
-- A turn was taken, and nothing was in its way. Schedulers read when.
update tide.chore set done_at = clock_timestamp() where name = 'maintenance'
