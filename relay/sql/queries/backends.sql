-- The outbox of another database as a source, its inbox as a sink.

-- name: source_outbox
-- An outbox, when it was made, the highest id taken, our group in it, who has the group there: a pipeline, or consumers
-- that poll it, which an older database does not know.
select o.outbox_id, extract(epoch from o.created_at)::text, tide.outbox_last_id(o.outbox_id), g.group_id, g.offset_id, p.name,
       coalesce((to_jsonb(g) ->> 'polled')::boolean, false)
  from tide.outbox o
  left join tide.consumer_group g on g.outbox_id = o.outbox_id and g.name = %(consumer_group)s and g.lane = 0
  left join tide.pipeline p on p.group_id = g.group_id
 where o.name = %(outbox)s

-- name: outbox_create_group
-- Makes our group where it is missing: at the oldest message that is kept, with its bell silent.
with made as (
    insert into tide.consumer_group (outbox_id, name) values (%(outbox_id)s, %(consumer_group)s)
    on conflict do nothing
    returning group_id, outbox_id
)
insert into tide.bell (group_id, outbox_id, armed) select group_id, outbox_id, false from made

-- name: source_listen
-- What a source hears: the bells of every outbox of that database.
listen tide_outbox_notify

-- name: source_bell
-- Arms or silences the bell of our group, which no pipeline of that database shares.
update tide.bell b set armed = %(armed)s where b.group_id = %(group_id)s and b.armed <> %(armed)s

-- name: source_rung
-- Whether publishers ring at all: the same question as theirs in tide.outbox_asleep.
select exists (select from tide.scheduler s where s.seen_at > clock_timestamp() - interval '15 seconds')

-- name: source_offset
-- What was stored elsewhere is settled here, so that retention may remove it.
update tide.consumer_group g set offset_id = %(offset_id)s
 where g.group_id = %(group_id)s and g.offset_id < %(offset_id)s

-- name: inbox_create
-- Makes an inbox, for a sink that is configured to.
select tide.inbox_create(%(inbox)s)
