-- name: demo_table
-- The application's own table of orders.
create table public.sold (order_number bigint primary key, customer text not null, total numeric not null)

-- name: demo_sold
-- Keeps orders, in the transaction that publishes them.
insert into public.sold (order_number, customer, total)
select * from unnest(%(numbers)s::bigint[], %(customers)s::text[], %(totals)s::numeric[])

-- name: demo_totals
-- The rows of the stream table, and those that its query yields now, of one snapshot.
select (select coalesce(jsonb_agg(t), '[]') from public.totals t)::text,
       (select coalesce(jsonb_agg(q), '[]') from (select customer, count(*) as orders, sum(total) as total from public.sold group by customer) q)::text
