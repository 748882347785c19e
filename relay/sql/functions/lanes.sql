-- Lanes: one pipeline, several drains at a time; of a forward pipeline each for the messages whose key falls to it, of a reverse pipeline
-- each for a part of the source, as that has parts.
--
-- Each lane of a forward pipeline has a row of tide.consumer_group, with an offset and a bell, and a row of tide.drain, with a fence and retries: a lane is
-- a group, as far as publishers, retention and drains can tell. Messages with one key have one lane, so their order holds; those without
-- a key are all in lane 0.
--
-- The number of lanes changes while none of them has a lease. All begin at the lowest offset then. What lanes before them had settled above
-- it is passed over: a message is, if its id is not above the offset of the lane that it had.

-- Which lane of so many a key falls to. The same on every server: hash partitions rely on this hash too.
create or replace function tide.lane_of(key text, lanes int) returns int
language sql immutable parallel safe
return mod(coalesce(hashtextextended(key collate "C", 0) & 9223372036854775807, 0), lanes)::int;
comment on function tide.lane_of is 'The lane in which the messages with a key are delivered, of so many: 0 to lanes - 1. Without a key: 0.';

-- Up to which id everything of a group is settled, in all its lanes.
create or replace function tide.settled_id(in_group int) returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select min(g.offset_id) from tide.consumer_group g where g.head_id = in_group;
end;

-- Gives a pipeline so many lanes, if none of those that it has holds a lease; false if one does, or another scheduler owns the pipeline.
-- Their drains get new epochs: one that is late is fenced.
create or replace function tide.lanes_change(pipeline text, owner uuid, wanted int) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    head     tide.consumer_group;
    settled  bigint[];
    start_id bigint;
    kept     jsonb;
begin
    perform from tide.drain d where d.pipeline = lanes_change.pipeline order by d.lane for update;
    if not found or exists (select from tide.drain d
                where d.pipeline = lanes_change.pipeline
                  and (d.lease_until > clock_timestamp() or d.lane = 0 and d.owner is distinct from lanes_change.owner)) then
        return false;
    end if;
    delete from tide.drain d where d.pipeline = lanes_change.pipeline and d.lane >= wanted;
    insert into tide.drain (pipeline, lane)
    select lanes_change.pipeline, l.lane from generate_series(0, wanted - 1) l (lane) on conflict do nothing;
    update tide.drain d set epoch = nextval('tide.epochs'), number = 0, lease_until = null where d.pipeline = lanes_change.pipeline;
    select g.* into head
      from tide.pipeline p join tide.consumer_group g on g.group_id = p.group_id
     where p.name = lanes_change.pipeline for no key update of g;
    if not found then
        return true;  -- it reads a source, whose parts have positions of their own
    end if;
    select array_agg(g.offset_id order by g.lane), min(g.offset_id) into settled, start_id
      from tide.consumer_group g where g.head_id = head.group_id;
    -- What came before the lowest offset is settled in every reading: only what was settled above it is worth knowing.
    select coalesce(jsonb_agg(l.layout), '[]') into kept
      from jsonb_array_elements(head.past || jsonb_build_object('lanes', cardinality(settled), 'offsets', settled)) l (layout)
     where (select max(o::bigint) from jsonb_array_elements_text(l.layout -> 'offsets') o) > start_id;
    delete from tide.consumer_group g where g.head_id = head.group_id and g.lane >= wanted;
    insert into tide.consumer_group (outbox_id, name, lane, lane_of, lanes)
    select head.outbox_id, head.name, l.lane, head.group_id, wanted
      from generate_series(1, wanted - 1) l (lane) on conflict do nothing;
    update tide.consumer_group g set offset_id = start_id, lanes = wanted, past = kept where g.head_id = head.group_id;
    insert into tide.bell (group_id, outbox_id)
    select g.group_id, g.outbox_id from tide.consumer_group g where g.head_id = head.group_id on conflict do nothing;
    return true;
end $$;
comment on function tide.lanes_change is 'Of the scheduler that owns a pipeline: it has so many lanes from now on. False: later.';
