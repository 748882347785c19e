-- What people build of stream tables: cleaned events and sums of them, the state of aggregates from events, the present rows of a
-- history, many results of one table, a dashboard, and the best of a ranking. :rows events, entries, orders.

-- name: tables
create table event (
    event_id bigint primary key, user_id int not null, kind text not null, page text, amount numeric(12, 2), received_at timestamp not null
);
create table entry (entry_id bigint primary key, account_id int not null, version int not null, kind text not null, amount numeric(12, 2) not null);
create table customer_version (
    version_id bigint primary key, customer_id int not null, name text not null, region text not null, valid_from date not null, valid_to date
);
create table purchase (purchase_id bigint primary key, customer_id int not null, region text not null, status text not null, total numeric(12, 2) not null);
create table ticket (ticket_id bigint primary key, customer_id int not null, open boolean not null);
create table bench.size as select :rows / 10 as users, :rows / 20 as accounts, :rows / 10 as customers;
create function bench.up_to(most int) returns int language sql volatile return 1 + floor(random() * most)::int;
create function bench.one_of(variadic words text[]) returns text language sql volatile
    return words[1 + floor(random() * cardinality(words))];
create function bench.add(first bigint, number int) returns void language sql begin atomic
    insert into event
    select first + i, bench.up_to(size.users), bench.one_of('view', 'view', 'click', 'purchase', 'bot'), 'page ' || bench.up_to(100),
           case when i % 5 > 0 then bench.up_to(50000) / 100.0 end, timestamp '2026-01-01' + (first + i) * interval '4 seconds'
      from bench.size, generate_series(1, number) i;
    insert into entry select first + i, bench.up_to(size.accounts), first + i, bench.one_of('deposit', 'withdrawal'), bench.up_to(100000) / 100.0
      from bench.size, generate_series(1, number) i;
    insert into customer_version
    select first + i, bench.up_to(size.customers), 'name ' || bench.up_to(1000), bench.one_of('north', 'south', 'east', 'west'),
           date '2020-01-01' + bench.up_to(2000), case when bench.up_to(6) > 1 then date '2026-01-01' end
      from bench.size, generate_series(1, number) i;
    insert into purchase
    select first + i, bench.up_to(size.customers), bench.one_of('north', 'south', 'east', 'west'), bench.one_of('new', 'paid', 'sent'),
           bench.up_to(50000) / 100.0 from bench.size, generate_series(1, number) i;
    insert into ticket select first + i, bench.up_to(size.customers), bench.up_to(4) = 1 from bench.size, generate_series(1, number / 5) i;
end;

-- name: rows
select setseed(0.5);
select bench.add(0, :rows);
create index on event (user_id);
create index on entry (account_id);
create index on customer_version (customer_id);
create index on purchase (customer_id);
create index on ticket (customer_id);

-- name: insert
select bench.add((select max(event_id) from event), :n);

-- name: delete
delete from event where event_id in (select event_id from event order by random() limit greatest(:n / 10, 1));
delete from entry where entry_id in (select entry_id from entry order by random() limit greatest(:n / 10, 1));
delete from purchase where purchase_id in (select purchase_id from purchase order by random() limit greatest(:n / 10, 1));
delete from ticket where ticket_id in (select ticket_id from ticket order by random() limit greatest(:n / 10, 1));

-- name: update
update event set amount = bench.up_to(500), kind = 'purchase' where event_id in (select event_id from event order by random() limit greatest(:n / 10, 1));
update customer_version set valid_to = date '2026-02-01'
 where version_id in (select version_id from customer_version where valid_to is null order by random() limit greatest(:n / 10, 1));
update purchase set status = 'sent', total = total + 1
 where purchase_id in (select purchase_id from purchase order by random() limit greatest(:n / 10, 1));
update ticket set open = not open where ticket_id in (select ticket_id from ticket order by random() limit greatest(:n / 10, 1));

-- name: cleaned_events
select distinct on (user_id, page, kind) user_id, page, kind, event_id, coalesce(amount, 0) as amount, received_at
  from event where kind <> 'bot' order by user_id, page, kind, received_at desc, event_id desc

-- name: purchases_of_users
select user_id, count(*) as purchases, sum(amount) as spent, avg(amount) as mean from event where kind = 'purchase' group by user_id

-- name: state_of_accounts
select account_id, sum(case when kind = 'deposit' then amount else -amount end) as balance, max(version) as version, count(*) as entries
  from entry group by account_id

-- name: events_by_hour
select date_trunc('hour', received_at) as hour, kind, count(*) as events, sum(amount) as amount from event group by 1, 2

-- name: present_customers
select version_id, customer_id, name, region, valid_from from customer_version where valid_to is null

-- name: customers_at_a_glance
select p.customer_id, count(*) as purchases, sum(p.total) as spent, max(p.purchase_id) as last_purchase,
       (select count(*) from ticket t where t.customer_id = p.customer_id and t.open) as open_tickets
  from purchase p group by p.customer_id

-- name: purchases_by_region
select region, status, count(*) as purchases, sum(total) as total from purchase group by region, status

-- name: totals_of_customers
select customer_id, sum(total) as total, count(*) as purchases from purchase group by customer_id

-- name: best_customers
select customer_id, sum(total) as total from purchase group by customer_id order by total desc, customer_id limit 20

-- name: waiting_purchases
select count(*) filter (where status = 'new') as fresh, count(*) filter (where status = 'paid') as paid, sum(total) as total from purchase
