-- Queries over the tables of tables.py, each with its line: see shapes.py. A query has as many lines as it needs.

select id, team, city from people where score > 3
--> rows, by id: linear

select team, count(*) as n, sum(score) as s, avg(score) as m from people group by team
--> state, by team: linear

select team, city, count(city) as n, sum(score) filter (where score > 4) as s from people group by team, city having
  count(*) > 1
--> state, by team, city: linear

select count(*) as n, sum(score) as s, avg(score) as m from people
--> state, one row: linear

select sum(pages) as s from visits
--> state, one row: linear

select team, pages from visits
--> rows, rows may repeat: linear

select distinct team, pages from visits
--> state, by team, pages: linear

select distinct city from people
--> state, by city: linear

select p.id, s.id as sale, p.city, s.amount from people p join sales s on p.team = s.team
--> rows, by id, sale: linear

select p.city, sum(s.amount) as s, count(*) as n from people p join sales s on p.team = s.team group by p.city
--> state, by city: linear

select p.city, v.pages from people p join visits v on v.team = p.team
--> rows, rows may repeat: linear

select one.id, other.id as other from people one join people other on one.team = other.team and one.id < other.id
--> rows, by id, other: linear

select one.city, count(*) as n from people one join people other on one.team = other.team join sales s on s.team =
  one.team group by one.city
--> state, by city: linear

select p.id, p.city, count(s.id) as n, coalesce(sum(s.amount), 0) as s from people p left join sales s on s.person_id
  = p.id group by p.id, p.city
--> rows, by id, city: keyed; index on id

select p.id, s.amount from people p left join sales s on s.person_id = p.id
--> rows, rows may repeat: people linear, sales keyed, people+sales keyed; index on id

select s.amount from people p left join sales s on s.person_id = p.id
--> rows, rows may repeat: people linear, sales two states, people+sales two states

select p.city, count(s.id) as n from people p left join sales s on s.person_id = p.id and s.team > 3 group by p.city
--> state, by city: people linear, sales two states, people+sales two states

-- Subqueries in conditions.

select id, team from people p where exists (select 1 from sales s where s.person_id = p.id and s.amount > 5)
--> rows, by id: people linear, sales keyed, people+sales keyed

select id, team from people p where not exists (select 1 from sales s where s.person_id = p.id)
--> rows, by id: people linear, sales keyed, people+sales keyed

select p.city, count(*) as n from people p where not exists (select 1 from sales s where s.person_id = p.id and s.team
  <> p.score) group by p.city
--> state, by city: people linear, sales two states, people+sales two states

select p.id from people p where p.id in (select s.person_id from sales s where s.amount > 5)
--> rows, by id: people linear, sales keyed, people+sales keyed

select p.id from people p where p.id in (select s.person_id from sales s group by s.person_id having sum(s.amount) >
  10)
--> rows, by id: people linear, sales keyed, people+sales keyed

select p.id from people p where p.id not in (select s.person_id from sales s where s.amount > 5)
--> rows, by id: people linear, sales linear + full, people+sales linear + full; node of state, one row

select p.id from people p where p.id not in (select s.person_id from sales s where s.person_id is not null)
--> rows, by id: people linear, sales linear + full, people+sales linear + full; node of state, one row

select p.id from people p where p.id not in (select t.person_id from tags t where t.weight is null)
--> rows, by id: people linear, tags keyed, people+tags keyed

select p.id, (select max(s.amount) from sales s where s.person_id = p.id) as m from people p
--> rows, by id: people linear, sales keyed, people+sales keyed

select p.city, sum(p.score) as s from people p where p.score > (select 0.5 * avg(o.score) from people o where o.team =
  p.team) group by p.city
--> state, by city: two states

select p.id, (select sum(o.score) from people o where o.team = p.team) as s from people p
--> rows, by id: two states

select id from people where score > (select avg(score) from people)
--> rows, by id: linear; node of state, one row

select distinct on (team) team, id, score from people order by team, score desc, id
--> rows, by team: keyed

select distinct on (p.id) p.id, s.amount from people p join sales s on s.person_id = p.id order by p.id, s.amount
  desc, s.id
--> rows, by id: keyed

select id, team, score, row_number() over (partition by id order by score) as place from people
--> rows, by id: keyed

select id, day, sum(value) over (partition by id order by day) as running from readings
--> rows, by id, day: keyed; index on id

select id, day, value, rank() over (order by value desc) as place from readings
--> full: its result depends on all rows of public.readings at once

select id, sum(value) as s, count(*) as n from readings group by id
--> state, by id: linear

select id, max(value) as top, min(value) as low, string_agg(value::text, ',' order by day) as list from readings group
  by id
--> rows, by id: keyed

select team, max(score) as top from people group by team
--> rows, by team: keyed

select id, team, score from people order by score desc, id limit 5
--> rows, by id: linear + full; node of rows, by c0

select team, sum(score) as s from people group by team order by s desc, team limit 3
--> rows, by team: linear + full; node of state, by c0

-- Subqueries in FROM.

select q.city, count(*) as n from (select p.city, s.amount from people p join sales s on p.team = s.team where
  s.amount > 2) q group by q.city
--> state, by city: linear

select q.n, count(*) as c from (select team, count(*) as n from people group by team) q group by q.n
--> state, by n: linear; node of state, by c0

select p.id, q.s from people p join (select person_id, sum(amount) as s from sales group by person_id) q on
  q.person_id = p.id
--> rows, by id: people linear, sales keyed, people+sales keyed

select p.id, q.s from people p left join (select person_id, sum(amount) as s from sales group by person_id) q on
  q.person_id = p.id
--> rows, by id: people linear, sales keyed, people+sales keyed

select p.id, q.amount from people p left join (select s.person_id, s.amount, v.pages from sales s join visits v on
  v.team = s.team) q on q.person_id = p.id
--> rows, rows may repeat: people linear, sales linear + keyed, visits linear + keyed, people+sales linear + keyed, people+visits linear + keyed, sales+visits linear + keyed, people+sales+visits linear + keyed; node of rows, rows may repeat; index on id

select p.id from people p left join sales s on p.team = s.team left join visits v on s.person_id = p.id and v.team =
  p.team
--> rows, rows may repeat: people linear, sales two states, visits two states, people+sales two states, people+visits two states, sales+visits two states, people+sales+visits two states

select team from people union all select team from sales
--> rows, rows may repeat: linear

-- WITH and views.

with q as (select team, count(*) as n from people group by team) select n from q
--> rows, rows may repeat: linear; node of state, by c0

with q as (select team, score from people where score > 2), r as (select team, sum(score) as s from q group by team)
  select r.team, r.s, q.score from r join q on q.team = r.team
--> rows, rows may repeat: two states

select v.city, sum(v.amount) as s from team_sales v group by v.city
--> state, by city: linear

select p.city, max(s.amount) as m, string_agg(s.id::text, ',' order by s.id) as l from people p join sales s on p.team
  = s.team group by p.city
--> rows, by city: people keyed, sales groups, people+sales groups

select city, sum(score::float8) as s from people group by city
--> rows, by city: keyed

select p.id, (select count(*) from sales s where s.person_id = p.id) as n from people p
--> rows, by id: people linear, sales keyed, people+sales keyed

select p.id from people p where exists (select 1 from sales s where s.person_id = p.id and exists (select 1 from
  visits v where v.team = s.team and v.pages > 0))
--> rows, by id: people linear, sales keyed, visits full, people+sales keyed, people+visits full, sales+visits full, people+sales+visits full

select p.id from people p where not exists (select 1 from sales s where s.person_id = p.id and not exists (select 1
  from visits v where v.team = p.id))
--> rows, by id: people linear, sales keyed, visits keyed, people+sales keyed, people+visits keyed, sales+visits keyed, people+sales+visits keyed

select p.id, s.amount, v.pages from people p left join sales s on s.person_id = p.id left join visits v on v.team =
  p.team
--> rows, rows may repeat: people linear, sales keyed, visits two states, people+sales keyed, people+visits two states, sales+visits full, people+sales+visits full; index on id

select p.id, s.amount, v.pages from people p left join sales s on s.person_id = p.id left join visits v on v.team =
  s.person_id
--> rows, rows may repeat: people linear, sales keyed, visits keyed, people+sales keyed, people+visits keyed, sales+visits keyed, people+sales+visits keyed; index on id

select p.id, s.amount, v.pages from people p left join (sales s join visits v on v.team = s.team) on s.person_id =
  p.id
--> rows, rows may repeat: people linear, sales keyed, visits full, people+sales keyed, people+visits full, sales+visits full, people+sales+visits full; index on id

select p.id, s.amount, v.pages from people p left join (sales s join visits v on v.team = s.person_id) on s.person_id
  = p.id
--> rows, rows may repeat: people linear, sales keyed, visits keyed, people+sales keyed, people+visits keyed, sales+visits keyed, people+sales+visits keyed; index on id

select p.id, p.score from people p where exists (select 1 from sales s where s.person_id = p.id) or p.score > 5
--> rows, by id: people linear, sales keyed, people+sales keyed

select p.id, p.city, sum(s.amount) filter (where s.team > 2) as s, count(s.id) as c from people p left join sales s on
  s.person_id = p.id group by p.id, p.city having count(s.id) <> 1
--> rows, by id, city: keyed; index on id

select p.id from people p where (p.id, p.team) in (select s.person_id, s.team from sales s)
--> rows, by id: people linear, sales keyed, people+sales keyed

select p.id, s.amount from people p left join sales s on s.person_id = p.id and p.score > 3 where s.amount is null or
  s.amount > 2
--> rows, rows may repeat: people linear, sales keyed, people+sales keyed; index on id

select p.id, (select s.amount from sales s where s.person_id = p.id order by s.id limit 1) as first from people p
--> rows, by id: people linear, sales keyed, people+sales keyed

select p.city, count(*) as n from people p where p.team in (select s.team from sales s where s.amount > 3) group by
  p.city
--> state, by city: people linear, sales two states, people+sales two states

select p.id from people p where p.team in (select s.team from sales s order by s.id limit 2)
--> rows, by id: people linear, sales full, people+sales full

select p.id from people p where exists (select 1 from people o where o.team = p.team and o.id <> p.id)
--> rows, by id: two states

select p.city, count(*) as n, sum(p.score) as s from people p where exists (select 1 from people o where o.team =
  p.team and o.id <> p.id) group by p.city
--> state, by city: two states

select p.id, boss.city from people p left join people boss on boss.id = p.team
--> rows, by id: two states

select boss.id, boss.city, count(p.id) as n from people boss left join people p on p.team = boss.id group by boss.id,
  boss.city
--> rows, by id, city: keyed; index on id

select boss.city, count(p.id) as n from people boss left join people p on p.team = boss.id group by boss.city
--> state, by city: two states

select p.id, s.team from people p left join sales s on p.team = s.team and s.person_id = p.id where p.score > 1
--> rows, rows may repeat: people linear, sales keyed, people+sales keyed; index on id

select s.person_id, count(*) as n from sales s where s.person_id in (select p.id from people p where p.score > 4)
  group by s.person_id
--> rows, by person_id: keyed

select team, sum(n) as s from (select team, count(*) as n from people group by team union all select team, count(*)
  from visits group by team) u group by team
--> state, by team: linear; node of state, by c0; node of state, by c0; node of rows, rows may repeat

select p.city, count(*) as n from people p left join sales s on s.person_id = p.id where s.id is null group by p.city
--> state, by city: people linear, sales two states, people+sales two states

select distinct p.city, s.team from people p join sales s on p.id = s.person_id
--> state, by city, team: linear

select count(distinct p.city) as c, max(s.amount) as m from people p join sales s on p.id = s.person_id
--> rows, one row: linear + groups; node of state, by c0; node of state, one row; node of rows, one row

select p.city, array_agg(s.id order by s.id) as l from people p join sales s on p.team = s.team group by p.city
--> rows, by city: people keyed, sales groups, people+sales groups

select team, count(distinct score) as n from people group by team
--> rows, by team: keyed

select date_trunc('hour', joined) as h, count(*) as n from people group by 1
--> state, by h: linear

select case when score > 4 then 'hi' else 'lo' end as c, sum(score) + count(*) as z, avg(score) / 2 as h from people
  group by 1
--> state, by c: linear

select s.team, s.amount from sales s where s.team = any (select v.team from visits v)
--> rows, rows may repeat: sales linear, visits keyed, sales+visits keyed; index on team

select p.id, u.n from people p, unnest(array[p.score, p.score + 1]) u(n)
--> rows, rows may repeat: linear

select p.id, unnest(array[p.score, p.team]) as z from people p
--> rows, rows may repeat: linear

select p.id, s.id as sale, v.pages from people p join sales s on p.team = s.team join visits v on v.team = s.team
  where p.score < 8
--> rows, rows may repeat: linear

select r.id, p.city, sum(r.value) as s from readings r join people p on p.id = r.id group by r.id, p.city
--> state, by id, city: linear

-- Numerics of any scale, floats, JSON.

select item, sum(price) as s, count(price) as n from prices group by item
--> state, by item: linear

select item, avg(price) as m from prices group by item
--> rows, by item: keyed; by form of price

select item, sum(price) / 3 as third from prices group by item
--> rows, by item: keyed; by form of price

select price, count(*) as n from prices group by price
--> state, by price: linear

select price::text as shown, count(*) as n from prices group by price
--> full: it shows the form of a numeric by which it groups

select item, price::text as shown from prices
--> rows, rows may repeat: linear; by form of price

select price::text as shown, count(*) as n from prices group by price::text
--> state, by shown: linear; by form of price

select item, rate, spec from prices
--> rows, rows may repeat: linear

select spec ->> 'size' as size, count(*) as n from prices group by 1
--> state, by size: linear; by form of spec

select item, sum(rate) as s from prices group by item
--> rows, by item: keyed

select sum(rate) as s from prices
--> full: sums of double precision are not exact

select max(price) as m from prices
--> rows, one row: groups

select team, avg(amount) as m, sum(amount * 2) as twice, sum(amount) / count(*) as mean from sales group by team
--> state, by team: linear

select avg(amount * 1.5) as m, sum(coalesce(amount, 0.00)) as s from sales
--> state, one row: linear

select sum(weight) as s, avg(weight) as m from tags
--> state, one row: linear

select p.city, t.tag, sum(t.weight) as w from people p join tags t on t.person_id = p.id group by p.city, t.tag
--> state, by city, tag: linear

select p.id, t.tag from people p join tags t on t.tag = p.city
--> rows, rows may repeat: linear

select p.city, count(*) as n from people p where exists (select 1 from tags t where t.tag = p.city) group by p.city
--> rows, by city: keyed

select id, team from people where score > 5 union all select id, team from sales where amount > 5
--> rows, rows may repeat: linear

select id, amount from sales union all select id, score from people where exists (select 1 from sales s where
  s.person_id = people.id)
--> rows, rows may repeat: people linear, sales two states, people+sales two states

select id, amount from big_sales
--> rows, by id: linear

select b.team, count(*) as n from big_sales b join people p on p.team = b.team group by b.team
--> state, by team: linear

select p.id, s.amount from people p join sales s using (team)
--> rows, rows may repeat: linear

select team, count(*) as n from people p join sales s using (team) join visits v using (team) group by team
--> state, by team: linear

select p.id, s.amount from people p left join sales s on s.person_id = p.id join visits v on v.team = s.team
--> rows, rows may repeat: people linear, sales keyed, visits linear, people+sales keyed, people+visits linear, sales+visits two states, people+sales+visits full; index on id

select p.id, s.id as sale from sales s right join people p on s.person_id = p.id
--> rows, by id, sale: people linear, sales keyed, people+sales keyed; index on id

select a.id, b.id as b, c.id as c from people a, people b, people c where a.team = b.team and b.score = c.score
--> rows, by id, b, c: linear

select a.id from people a, people b, people c, people d, people e where a.team = b.team and b.id = c.id and c.id =
  d.id and d.score = e.score
--> full: tables that changed are read 5 times: 4 at most

select p.id, q.n from people p join (select team, count(*) as n from people group by team) q on q.team = p.team
--> rows, by id: two states

select p.id, q.top from people p left join (select distinct on (person_id) person_id, amount as top from sales order
  by person_id, amount desc, id) q on q.person_id = p.id
--> rows, by id: people linear, sales keyed, people+sales keyed

select q.team, q.place from (select team, row_number() over (partition by team order by id) as place from people) q
  where q.place <= 2
--> rows, rows may repeat: keyed + linear; node of rows, rows may repeat

select v.x, count(*) as n from (values (1), (2), (3)) v(x) join people p on p.team = v.x group by v.x
--> state, by x: linear

select p.id, g.n from people p cross join lateral generate_series(1, p.team) g(n)
--> rows, rows may repeat: linear

select p.id, p.city from people p where p.city = 'Bern' or p.city is null
--> rows, by id: linear

select count(*) as n from people having count(*) > 5
--> state, one row: linear

select 'all' as label, count(*) as n from sales where team = 2
--> state, one row: linear

select city, bool_or(score > 5) as any, every(score > 1) as every from people group by city
--> rows, by city: keyed

select p.id, p.city, count(*) as n from people p join sales s on s.person_id = p.id group by p.id
--> state, by id: linear

select city from people group by city
--> state, by city: linear

select s.person_id, s.note, p.city from sales s join people p on p.city = s.note
--> rows, rows may repeat: linear

select id, joined, joined::date as day from people where joined >= '2026-01-01 01:00+00'
--> rows, by id: linear

select team, sum(score) over (partition by team) as s, id from people where score > 2
--> rows, by id: keyed; index on team

select team, id, rank() over w as place from people window w as (partition by team order by score desc, id)
--> rows, by id: keyed; index on team

select v.team, s.id from visits v left join sales s on s.team = v.team
--> rows, rows may repeat: sales keyed, visits linear, sales+visits keyed; index on team

select v.team, v.pages, count(*) as n from visits v left join sales s on s.team = v.team group by v.team, v.pages
--> rows, by team, pages: keyed; index on team

select p.city, v.pages from people p left join visits v on v.team = p.team
--> rows, rows may repeat: people linear, visits two states, people+visits two states

select count(*) as n from people p where exists (select 1 from visits v where v.team = p.team)
--> state, one row: people linear, visits two states, people+visits two states

select v.pages, count(*) as n from visits v where exists (select 1 from sales s where s.team = v.team) group by
  v.pages
--> state, by pages: sales two states, visits linear, sales+visits two states

select pages from visits v where not exists (select 1 from visits w where w.team = v.team and w.pages > v.pages)
--> rows, rows may repeat: two states

-- Subqueries that may have several answers.

select p.id, (select string_agg(s.note, ',') from sales s where s.person_id = p.id) as l from people p
--> rows, by id: keyed

select p.id, (select string_agg(s.note, ',' order by s.id) from sales s where s.person_id = p.id) as l from people p
--> rows, by id: people linear, sales keyed, people+sales keyed

select p.city, (select string_agg(s.note, ',') from sales s where s.person_id = p.id) as l from people p
--> full: it has a subquery with more than one right answer, such as LIMIT without a total order

select p.id, q.team from people p join (select team from sales order by amount, id limit 3) q on q.team = p.team
--> rows, rows may repeat: people linear, sales linear + full, people+sales linear + full; node of rows, by c2; node of rows, rows may repeat

select p.id, (select sum(v.pages * 0.1::float8) from visits v where v.team = p.team) as s from people p
--> full: it has a subquery with more than one right answer, such as LIMIT without a total order

select p.id, array(select s.id from sales s where s.person_id = p.id order by s.id) as l from people p
--> rows, by id: people linear, sales keyed, people+sales keyed

select p.id, array(select s.note::text from sales s where s.person_id = p.id) as l from people p
--> rows, by id: keyed

select id, team from people where score > 5 union all select id, team from sales order by 1, 2
--> rows, rows may repeat: linear

select p.id, q.m from people p join (select item, max(price) as m from prices group by item) q on q.item = p.city
--> rows, by id: people linear, prices keyed + linear, people+prices keyed + linear; node of rows, by c0

select p.id, q.m::text as m from people p join (select item, max(price) as m from prices group by item) q
  on q.item = p.city
--> full: it has a subquery with more than one right answer, such as LIMIT without a total order

select p.id, (select max(r.price) from prices r where r.item = p.city)::text as m from people p
--> full: it has a subquery with more than one right answer, such as LIMIT without a total order

select p.id from people p where 2 < (select max(r.price) from prices r where r.item = p.city)
--> rows, by id: people linear, prices full, people+prices full; by form of price

-- Hidden nodes: what groups, chooses or repeats is a table of its own.

select q.n, count(*) as c from (select count(*) as n from people group by team) q group by q.n
--> state, by n: linear; node of state, by c1

select team, count(*) as n from people group by team union all select team, count(*) from visits group by team
--> rows, rows may repeat: linear; node of state, by c0; node of state, by c0

select distinct team from people union all select team from sales
--> rows, rows may repeat: linear; node of state, by c0

select team from people union select team from sales
--> state, by team: linear; node of rows, rows may repeat

select team from people union select team from sales union select team from visits order by 1
--> state, by team: linear; node of rows, rows may repeat; node of state, by c0; node of rows, rows may repeat

select team, score from people union select team, id from sales order by 2 desc, 1 limit 4
--> rows, by team, score: linear + full; node of rows, rows may repeat; node of state, by c0, c1

select city, sum(s.amount) as s from people p join sales s on s.person_id = p.id group by city order by count(*) desc, city limit 2 offset 1
--> rows, by city: linear + full; node of state, by c0

select distinct on (team) team, id, score from people order by team, score desc, id limit 3
--> rows, by team: keyed + full; node of rows, by c0

select distinct team, city from people order by team, city limit 3
--> rows, by team, city: linear + full; node of state, by c0, c1

select distinct count(*) as n, sum(score) as s from people group by team
--> state, by n, s: linear; node of state, by c0

select team, count(*) as n, rank() over (order by count(*) desc, team) as place from people group by team
--> rows, by team: linear + full; node of state, by c0

select id, score from people where score >= (select avg(score) from people)
--> rows, by id: linear; node of state, one row

select s.id, s.amount from sales s where s.amount = (select max(amount) from sales)
--> rows, by id: groups + linear; node of rows, one row

select city, count(*) as n from people where score < (select avg(weight) from tags) group by city
--> state, by city: linear; node of state, one row

select s.team, sum(s.amount) as s from sales s group by s.team having sum(s.amount) > (select avg(amount) from sales)
--> rows, by team: linear; node of state, by c0; node of state, one row

select s.team, sum(s.amount) as s, (select count(*) from people p where p.team = s.team) as people from sales s group by s.team
--> rows, by team: keyed

select p.id, p.city, count(*) as n, exists (select 1 from tags t where t.person_id = p.id) as tagged from people p join sales s on s.person_id = p.id group by p.id
--> rows, by id: keyed

select max(score) as top, min(city) as first from people
--> rows, one row: groups

select max(s.amount) as top, min(p.score) as low from sales s join people p on p.id = s.person_id
--> rows, one row: groups

select max(price) as top, min(rate) as low from prices
--> rows, one row: groups

with totals as (select team, sum(amount) as total from sales group by team) select p.id, t.total from people p join totals t on t.team = p.team where t.total = (select max(total) from totals)
--> rows, by id: people linear, sales linear + groups, people+sales linear + groups; node of state, by c0; node of rows, one row

select q.top, count(*) as n from (select person_id, max(amount) as top from sales group by person_id) q group by q.top
--> state, by top: keyed + linear; node of rows, by c0

select t.mean, count(*) as n from (select team, avg(score) as mean from people group by team) t group by t.mean
--> state, by mean: linear; node of state, by c0

select q.city, q.n, v.pages from (select city, team, count(*) as n from people group by city, team) q join visits v on v.team = q.team
--> rows, rows may repeat: people two states, visits linear, people+visits two states

select q.n from (select team, count(*) as n from people group by team) q left join visits v on v.team = q.team where v.pages is null
--> rows, rows may repeat: people linear, visits two states, people+visits linear + two states; node of state, by c0

select p.id from people p where p.team in (select q.team from (select team, count(*) as n from visits group by team) q where q.n > 2)
--> rows, by id: people linear, visits two states, people+visits two states

select q.city, count(*) as n from (select distinct p.city, s.team from people p join sales s on s.person_id = p.id) q group by q.city
--> state, by city: linear; node of state, by c0, c1

select avg(q.total) as mean, max(q.total) as most from (select team, sum(amount) as total from sales group by team) q
--> rows, one row: linear + groups; node of state, by c0; node of state, one row; node of rows, one row

select u.kind, count(*) as n from (select city as kind from people union all select note from sales) u group by u.kind
--> state, by kind: linear; node of rows, rows may repeat

select item, top from (select item, max(price) as top from prices group by item) q where top > 1
--> rows, by item: keyed + linear; node of rows, by c0

select count(distinct city) as n from people
--> state, one row: linear; node of state, by c0

select count(*) as n, sum(amount) as s, max(amount) as top, min(id) filter (where team > 2) as first, count(distinct note) as notes,
  count(distinct team) + 1 as teams from sales where team < 5 having count(*) > 3
--> rows, one row: linear + groups; node of state, one row; node of rows, one row; node of state, by c0; node of state, one row; node of state, by c0; node of state, one row

select p.id, q.amount from people p left join (select s.person_id, s.amount, v.pages from sales s join visits v on v.team = s.team where v.pages > 0) q on q.person_id = p.id
--> rows, rows may repeat: people linear, sales linear + keyed, visits linear + keyed, people+sales linear + keyed, people+visits linear + keyed, sales+visits linear + keyed, people+sales+visits linear + keyed; node of rows, rows may repeat; index on id

select count(distinct s.team) as n, sum(distinct s.team) + 1 as s from sales s join people p on p.id = s.person_id
--> state, one row: linear; node of state, by c0

select team, string_agg(city, ',' order by city) as list from (select distinct team, city from people) q group by team
--> rows, by team: linear + keyed; node of state, by c0, c1

select 100.00 * sum(case when team > 2 then amount else 0 end) / sum(amount) as share from sales having sum(amount) <> 0
--> state, one row: linear

select team, sum(case when team > 2 then amount else 1 end) / 7 as share from sales group by team
--> rows, by team: keyed

select t.team, sum(case when t.big then t.double else 0 end) / sum(t.double) as share from (select team, amount > 3 as big, amount * 2 + 1 as double from sales) t group by t.team having sum(t.double) <> 0
--> state, by team: linear

select id, (score > 4) is not true as low, (team > 2) is unknown as odd, (team > 2) is not false as some from people where (team > 2) is not unknown or score > 3
--> rows, by id: linear

select q.s::text as s from (select item, sum(price) as s from prices group by item) q
--> full: it has a subquery with more than one right answer, such as LIMIT without a total order

select q.s::text as s from (select team, sum(amount) as s from sales group by team) q
--> rows, rows may repeat: linear; node of state, by c0

select p.id, p.team from people p where p.score > (select count(*) from tags t where t.person_id = p.id)
--> rows, by id: people linear, tags keyed, people+tags keyed

-- What an outer join compares says nothing of the side that is kept.

select p.id, p.team, s.id as sale, v.pages from people p cross join sales s
  left join visits v on v.team = p.team and v.team = s.team
--> rows, rows may repeat: people linear, sales linear, visits keyed, people+sales linear, people+visits keyed, sales+visits two states, people+sales+visits full; index on team

select p.id, p.team, s.id as sale, v.pages from people p cross join sales s
  left join visits v on v.pages = s.team and p.team = s.team
--> rows, rows may repeat: people linear, sales linear, visits two states, people+sales linear, people+visits full, sales+visits two states, people+sales+visits full

select p.team, s.team as other, t.tag from people p join sales s on s.person_id = p.id
  left join tags t on p.team = s.team and t.person_id = p.id
--> rows, rows may repeat: people linear, sales linear, tags two states, people+sales linear, people+tags two states, sales+tags two states, people+sales+tags two states

-- A list that a column is not in.

select p.id, p.city from people p where p.city not in ('york', 'bath')
--> rows, by id: linear

-- INTERSECT and EXCEPT: by how often a row is on each side.

select team from people except select team from sales
--> state, by team: linear; node of rows, rows may repeat

select team from people except all select team from sales
--> rows, rows may repeat: linear; node of rows, rows may repeat; node of state, by c0

select team from people intersect select team from sales
--> state, by team: linear; node of rows, rows may repeat

select team from people intersect all select team from sales
--> rows, rows may repeat: linear; node of rows, rows may repeat; node of state, by c0

select team, city as place from people except select team, note from sales except select team, 'x' from visits
--> state, by team, place: linear; node of rows, rows may repeat; node of state, by c0, c1; node of rows, rows may repeat

select team, score from people except all (select team, id from sales intersect all select team, pages from visits)
--> rows, rows may repeat: linear; node of rows, rows may repeat; node of state, by c0, c1; node of rows, rows may repeat; node of rows, rows may repeat; node of state, by c0, c1

select u.team, count(*) as n from (select team from people intersect all select team from sales) u group by u.team
--> state, by team: linear; node of rows, rows may repeat; node of state, by c0; node of rows, rows may repeat

select p.id, u.person_id from people p left join (select person_id from tags except all select person_id from sales) u
  on u.person_id = p.id
--> rows, rows may repeat: people linear, sales linear + keyed, tags linear + keyed, people+sales linear + keyed, people+tags linear + keyed, sales+tags linear + keyed, people+sales+tags linear + keyed; node of rows, rows may repeat; node of state, by c0; node of rows, rows may repeat; index on id

select p.id from people p where p.team in (select team from visits except select team from sales)
--> rows, by id: people linear, sales linear + two states, visits linear + two states, people+sales linear + two states, people+visits linear + two states, sales+visits linear + two states, people+sales+visits linear + two states; node of rows, rows may repeat; node of state, by c0

select p.id from people p where exists (select s.team from sales s where s.person_id = p.id except select v.team from
  visits v where v.team = p.team)
--> rows, by id: people linear, sales keyed, visits two states, people+sales keyed, people+visits two states, sales+visits full, people+sales+visits full

select price from prices except select amount from sales
--> state, by price: linear; node of rows, rows may repeat

select p.id from people p where p.team in (select team from visits union select team from sales)
--> rows, by id: people linear, sales linear + two states, visits linear + two states, people+sales linear + two states, people+visits linear + two states, sales+visits linear + two states, people+sales+visits linear + two states; node of rows, rows may repeat; node of state, by c0

select p.id, u.price::text as price from people p join (select price from prices intersect select amount from sales) u
  on u.price > p.team
--> full: it has a subquery with more than one right answer, such as LIMIT without a total order

select team, max(score) as m from people group by team except select team, id from sales where amount > 3 order by 2
  desc, 1 limit 4
--> rows, by team, m: people keyed + linear + full, sales linear + full, people+sales keyed + linear + full; node of rows, by c0; node of rows, rows may repeat; node of state, by c0, c1

select distinct city from people union (select note from sales except all select tag from tags)
--> state, by city: linear; node of state, by c0; node of rows, rows may repeat; node of state, by c0; node of rows, rows may repeat; node of rows, rows may repeat

with paid as (select team, amount from sales where amount > 1) select team, count(*) as n from paid group by team
  intersect select p.team, v.pages from people p left join visits v on v.team = p.team
--> state, by team, n: people linear, sales linear, visits two states + linear, people+sales linear, people+visits two states + linear, sales+visits linear + two states, people+sales+visits linear + two states; node of state, by c0; node of rows, rows may repeat

-- FULL JOIN: the LEFT JOIN, and what it leaves out of the right side.

select p.city, sum(amount) as s from people p full join sales s on p.id = s.person_id group by p.city
--> state, by city: two states + linear; node of rows, rows may repeat

select p.id, s.id as sale from people p full join sales s on s.person_id = p.id
--> rows, rows may repeat: two states + linear; node of rows, rows may repeat

select p.id, s.id as sale, t.tag from people p full join sales s on s.person_id = p.id full join tags t on t.person_id
  = s.person_id and t.tag = s.note where s.id is null or s.team > 2
--> rows, rows may repeat: two states + linear; node of rows, rows may repeat; node of rows, rows may repeat; node of rows, rows may repeat

select p.id, s.id as sale, t.tag from tags t join (people p full join sales s on s.team = p.team and s.amount > 2) on
  t.person_id = coalesce(p.id, s.id)
--> rows, rows may repeat: people two states + linear, sales two states + linear, tags linear, people+sales two states + linear, people+tags two states + linear, sales+tags two states + linear, people+sales+tags two states + linear; node of rows, rows may repeat

select p.id, s.id as sale, t.tag from (people p full join sales s on s.team = p.team) left join tags t on t.person_id
  = p.id
--> rows, rows may repeat: people two states + linear, sales two states + linear, tags keyed, people+sales two states + linear, people+tags two states + keyed, sales+tags two states + keyed, people+sales+tags two states + keyed; node of rows, rows may repeat; index on id

select p.id, s.id as sale, t.tag from (people p join tags t on t.person_id = p.id) full join sales s on s.team =
  p.team and s.note = t.tag
--> rows, rows may repeat: people two states + linear, sales two states + linear, tags two states + linear, people+sales two states + linear, people+tags full + linear, sales+tags two states + linear, people+sales+tags full + linear; node of rows, rows may repeat

select p.id, g.team, g.n from people p full join (select team, count(*) as n from sales group by team) g on g.team =
  p.team
--> rows, rows may repeat: people two states + linear, sales linear + two states, people+sales linear + two states; node of state, by c0; node of rows, rows may repeat

select team, count(*) as n from people p full join sales s using (team) group by team
--> state, by team: two states + linear; node of rows, rows may repeat

select p.id, (select count(*) from tags t full join sales s on s.person_id = t.person_id where t.weight is null) as n
  from people p
--> rows, by id: people linear, sales two states + linear, tags two states + linear, people+sales two states + linear, people+tags two states + linear, sales+tags two states + linear, people+sales+tags two states + linear; node of rows, rows may repeat; node of state, one row

select v.team, w.pages from visits v full join visits w on w.team = v.team and w.pages = v.pages
--> rows, rows may repeat: two states + linear; node of rows, rows may repeat

select p.id, s.amount, exists (select 1 from tags t where t.person_id = p.id) as e from people p full join sales s on
  s.person_id = p.id
--> rows, rows may repeat: people two states + linear, sales two states + linear, tags keyed, people+sales two states + linear, people+tags two states + keyed, sales+tags two states + keyed, people+sales+tags two states + keyed; node of rows, rows may repeat; index on id

select p.id from people p where exists (select 1 from tags t full join sales s on s.person_id = t.person_id where
  t.person_id = p.id)
--> rows, by id: people linear, sales two states + keyed, tags two states + keyed, people+sales two states + keyed, people+tags two states + keyed, sales+tags two states + keyed, people+sales+tags two states + keyed; node of rows, rows may repeat

select a.id, b.id as other from people a full join people b on a.team = b.score
--> rows, rows may repeat: two states + linear; node of rows, rows may repeat

select team, count(*) as n, avg(amount) as m from people p full join sales s using (team) group by team
--> state, by team: two states + linear; node of rows, rows may repeat

select team, p.id, s.id as sale, v.pages from people p full join sales s using (team) full join visits v using (team)
--> rows, rows may repeat: two states + linear; node of rows, rows may repeat; node of rows, rows may repeat; node of rows, rows may repeat

select team, p.id, s.id as sale, v.pages from people p full join sales s using (team) left join visits v using (team)
--> rows, rows may repeat: people two states + linear, sales two states + linear, visits keyed, people+sales two states + linear, people+visits two states + keyed, sales+visits two states + keyed, people+sales+visits two states + keyed; node of rows, rows may repeat; index on team

select p.id, s.id as sale, t.tag from people p full join sales s on s.person_id = p.id and p.score > 3 and s.amount >
  2 left join tags t on t.person_id = p.id
--> rows, rows may repeat: people two states + linear, sales two states + linear, tags keyed, people+sales two states + linear, people+tags two states + keyed, sales+tags two states + keyed, people+sales+tags two states + keyed; node of rows, rows may repeat; index on id

select p.team, avg(s.amount) as m, count(p.id) as n from people p full join sales s on s.team = p.team group by p.team
--> state, by team: two states + linear; node of rows, rows may repeat

select p.id, s.amount from people p full join sales s on s.person_id = p.id order by s.amount desc nulls last, p.id,
  s.id limit 5
--> rows, rows may repeat: two states + linear + full; node of rows, rows may repeat; node of rows, rows may repeat

-- Lateral subqueries.

select p.id, l.n from people p, lateral (select count(*) as n from sales s where s.person_id = p.id) l
--> rows, by id: people linear, sales keyed, people+sales keyed

select p.id, l.amount from people p cross join lateral (select s.amount from sales s where s.person_id = p.id order by
  s.amount desc limit 1) l
--> rows, by id: keyed

select p.id, l.id as sale, l.a from people p left join lateral (select s.id, s.amount * 2 as a from sales s where
  s.person_id = p.id and s.team > 1) l on true
--> rows, by id, sale: people linear, sales keyed, people+sales keyed; index on id

select p.city, count(l.id) as n from people p left join lateral (select s.id from sales s where s.person_id = p.id
  order by s.id desc limit 2) l on l.id > p.score group by p.city
--> state, by city: people linear, sales two states, people+sales two states

select p.id, l.team, l.n, t.tag from people p join tags t on t.person_id = p.id, lateral (select s.team, count(*) as n
  from sales s where s.person_id = t.person_id and s.note = t.tag group by s.team) l
--> rows, by id, team, tag: people linear, sales keyed, tags linear, people+sales keyed, people+tags linear, sales+tags keyed, people+sales+tags keyed; index on id

select p.id, l.m, k.x from people p, lateral (select max(s.amount) as m from sales s where s.person_id = p.id) l,
  lateral (select count(*) as x from readings r where r.id = p.id and r.value > l.m) k
--> rows, by id: people linear, readings keyed, sales keyed, people+readings keyed, people+sales keyed, readings+sales keyed, people+readings+sales keyed

select p.id, l.pages from people p, lateral (select v.pages from visits v where v.team = p.team union select s.id from
  sales s where s.team = p.team) l
--> rows, rows may repeat: people linear, sales two states, visits two states, people+sales two states, people+visits two states, sales+visits two states, people+sales+visits two states

select p.id from people p where exists (select 1 from tags t, lateral (select max(s.amount) as m from sales s where
  s.person_id = t.person_id) l where t.person_id = p.id and l.m > 2)
--> rows, by id: people linear, sales keyed, tags keyed, people+sales keyed, people+tags keyed, sales+tags keyed, people+sales+tags keyed

select l.m, count(*) as n from people p, lateral (select max(s.amount) as m from sales s where s.team = p.team) l
  group by l.m
--> state, by m: people linear, sales two states, people+sales two states

select p.id, l.n from people p cross join lateral (select count(*) as n from sales s where s.amount > p.score) l
--> rows, by id: people linear, sales full, people+sales full

select p.id, l.x, l.y from people p cross join lateral (values (p.team, p.score), (p.score, p.id)) l(x, y)
--> rows, rows may repeat: linear

select p.id, l.n from people p, lateral (select p.score + p.id as n) l where l.n > 4
--> rows, by id: linear

-- Groups of what a subquery finds, NOT IN where a null is possible, LIMIT with those that tie.

select exists (select 1 from sales s where s.person_id = p.id) as e, count(*) as n from people p group by 1
--> state, by e: people linear, sales two states, people+sales two states

select (select max(s.amount) from sales s where s.person_id = p.id) as m, p.team, count(*) as n, sum(p.score) as t
  from people p group by 1, 2 having count(*) > 0
--> state, by m, team: people linear, sales two states, people+sales two states

select p.id, p.city, (select count(*) from sales s where s.person_id = p.id) as n, max(t.weight) as w from people p
  left join tags t on t.person_id = p.id group by p.id, (select count(*) from sales s where s.person_id = p.id)
--> rows, rows may repeat: keyed; index on id

select distinct (select min(v.pages) from visits v where v.team = p.team) as e from people p
--> state, by e: people linear, visits two states, people+visits two states

select p.id from people p where p.team not in (select v.team from visits v)
--> rows, by id: people linear, visits linear + full, people+visits linear + full; node of state, one row

select p.city, count(*) as n from people p where p.score > 1 and p.team not in (select v.team from visits v where
  v.pages > 0) group by p.city
--> state, by city: people linear, visits linear + full, people+visits linear + full; node of state, one row

select p.id, t.tag from people p left join tags t on t.person_id = p.id where t.tag not in (select s.note from sales
  s)
--> rows, by id, tag: people linear, sales linear + full, tags keyed, people+sales linear + full, people+tags keyed, sales+tags linear + full, people+sales+tags linear + full; node of state, one row; index on id

select p.id, p.team from people p order by p.team desc nulls last fetch first 3 rows with ties
--> rows, by id: linear + full; node of rows, by c0

select p.team, count(*) as n from people p group by p.team order by n desc fetch first 2 rows with ties
--> rows, by team: linear + full; node of state, by c0

select l.team, count(*) as n from (select team, score from people order by score desc fetch first 4 rows with ties) l
  group by l.team
--> state, by team: linear + full; node of rows, rows may repeat; node of rows, rows may repeat

select p.id from people p where p.team not in (select v.team from visits v union select s.team from sales s)
--> rows, by id: people linear, sales linear + full, visits linear + full, people+sales linear + full, people+visits linear + full, sales+visits linear + full, people+sales+visits linear + full; node of rows, rows may repeat; node of state, by c0

select p.id from people p where exists (select 1 from sales s where s.person_id = p.id and s.team not in (select
  v.team from visits v))
--> rows, by id: people linear, sales keyed, visits linear + full, people+sales keyed, people+visits linear + full, sales+visits linear + full, people+sales+visits linear + full; node of state, one row
