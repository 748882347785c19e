-- The auction of Nexmark: persons, auctions, :rows bids. Its queries over windows of time group by the time of the row.

-- name: tables
create table person (id bigint primary key, name text not null, email text not null, city text not null, state text not null, date_time timestamp not null);
create table auction (
    id bigint primary key, item text not null, reserve bigint not null, date_time timestamp not null, expires timestamp not null,
    seller bigint not null, category int not null
);
create table bid (
    id bigint primary key, auction bigint not null, bidder bigint not null, price bigint not null, channel text not null, date_time timestamp not null
);
create table bench.size as select greatest(:rows / 20, 10) as persons, greatest(:rows / 4, 10) as auctions;
create function bench.up_to(most int) returns int language sql volatile return 1 + floor(random() * most)::int;
create function bench.add_bids(first bigint, number int) returns void language sql begin atomic
    insert into bid
    select first + i, bench.up_to(size.auctions), bench.up_to(size.persons), bench.up_to(10000), 'channel ' || bench.up_to(5),
           timestamp '2026-01-01' + (first + i) * interval '1 second' from bench.size, generate_series(1, number) i;
end;
create function bench.add_auctions(first bigint, number int) returns void language sql begin atomic
    insert into auction
    select first + i, 'item ' || i, bench.up_to(5000), a.began, a.began + bench.up_to(7200) * interval '1 second', bench.up_to(size.persons),
           bench.up_to(5) + 9
      from bench.size, generate_series(1, number) i cross join lateral (select timestamp '2026-01-01' + (first + i) * interval '4 seconds' as began) a;
end;
create function bench.add_persons(first bigint, number int) returns void language sql begin atomic
    insert into person
    select first + i, 'person ' || i, i || '@example.org', 'city ' || bench.up_to(50), (array['OR', 'ID', 'CA', 'NY', 'WA'])[bench.up_to(5)],
           timestamp '2026-01-01' + (first + i) * interval '20 seconds' from generate_series(1, number) i;
end;

-- name: rows
select setseed(0.5);
select bench.add_persons(0, (select persons from bench.size));
select bench.add_auctions(0, (select auctions from bench.size));
select bench.add_bids(0, :rows);
create index on auction (seller);
create index on bid (auction);
create index on bid (bidder);

-- name: insert
select bench.add_persons((select max(id) from person), greatest(:n / 20, 1));
select bench.add_auctions((select max(id) from auction), greatest(:n / 4, 1));
select bench.add_bids((select max(id) from bid), :n);

-- name: delete
delete from bid where id in (select id from bid order by random() limit :n);
delete from auction where id in (select id from auction order by random() limit greatest(:n / 4, 1));

-- name: update
update bid set price = price + bench.up_to(500), auction = case when id % 3 = 0 then auction else greatest(auction - 1, 1) end
 where id in (select id from bid order by random() limit :n);
update auction set expires = expires + interval '10 minutes', category = 9 + bench.up_to(5)
 where id in (select id from auction order by random() limit greatest(:n / 4, 1));

-- name: other_person
update person set state = 'OR', city = 'city 1' where id % 100 = 7;
delete from person where id % 400 = 9;

-- name: q0
select auction, bidder, price, date_time from bid

-- name: q1
select auction, bidder, 0.908 * price as euros, date_time from bid

-- name: q2
select id, auction, price from bid where auction % 123 = 0

-- name: q3
select p.name, p.city, p.state, a.id from auction a join person p on p.id = a.seller
 where a.category = 10 and p.state in ('OR', 'ID', 'CA')

-- name: q4
select t.category, avg(t.final) as price
  from (select a.id, a.category, max(b.price) as final from auction a join bid b on b.auction = a.id
         where b.date_time between a.date_time and a.expires group by a.id, a.category) t
 group by t.category

-- name: q5
select auction, date_trunc('hour', date_time) as hour, count(*) as bids from bid group by auction, date_trunc('hour', date_time)

-- name: q6
select a.seller, avg(b.price) as mean, count(*) as bids from auction a join bid b on b.auction = a.id
 where b.date_time between a.date_time and a.expires group by a.seller

-- name: q7
select b.auction, b.bidder, b.price, b.date_time from bid b
 where b.price = (select max(b2.price) from bid b2)

-- name: q8
select p.id, p.name, date_trunc('hour', p.date_time) as hour, count(*) as auctions
  from person p join auction a on a.seller = p.id and date_trunc('hour', a.date_time) = date_trunc('hour', p.date_time)
 group by p.id, p.name, date_trunc('hour', p.date_time)

-- name: q9
select distinct on (a.id) a.id, a.item, a.seller, b.bidder, b.price, b.date_time
  from auction a join bid b on b.auction = a.id and b.date_time between a.date_time and a.expires
 order by a.id, b.price desc, b.date_time, b.id
