-- What the 22 queries of TPC-H ask for, written from the specification. Rows that LIMIT chooses among have an order without ties.

-- name: q01
select l_returnflag, l_linestatus, sum(l_quantity) as quantity, sum(l_extendedprice) as price,
       sum(l_extendedprice * (1 - l_discount)) as discounted, sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) as charged,
       avg(l_quantity) as mean_quantity, avg(l_extendedprice) as mean_price, avg(l_discount) as mean_discount, count(*) as lines
  from lineitem where l_shipdate <= date '1998-12-01' - 90 group by l_returnflag, l_linestatus

-- name: q02
select s.s_acctbal, s.s_name, n.n_name, p.p_partkey, p.p_mfgr, s.s_address, s.s_phone, s.s_comment
  from part p join partsupp ps on ps.ps_partkey = p.p_partkey join supplier s on s.s_suppkey = ps.ps_suppkey
  join nation n on n.n_nationkey = s.s_nationkey join region r on r.r_regionkey = n.n_regionkey
 where p.p_size = 15 and p.p_type like '%BRASS' and r.r_name = 'EUROPE'
   and ps.ps_supplycost = (select min(ps2.ps_supplycost) from partsupp ps2 join supplier s2 on s2.s_suppkey = ps2.ps_suppkey
                             join nation n2 on n2.n_nationkey = s2.s_nationkey join region r2 on r2.r_regionkey = n2.n_regionkey
                            where ps2.ps_partkey = p.p_partkey and r2.r_name = 'EUROPE')
 order by s.s_acctbal desc, n.n_name, s.s_name, p.p_partkey limit 100

-- name: q03
select l.l_orderkey, sum(l.l_extendedprice * (1 - l.l_discount)) as revenue, o.o_orderdate, o.o_shippriority
  from customer c join orders o on o.o_custkey = c.c_custkey join lineitem l on l.l_orderkey = o.o_orderkey
 where c.c_mktsegment = 'BUILDING' and o.o_orderdate < date '1995-03-15' and l.l_shipdate > date '1995-03-15'
 group by l.l_orderkey, o.o_orderdate, o.o_shippriority order by revenue desc, o.o_orderdate, l.l_orderkey limit 10

-- name: q04
select o.o_orderpriority, count(*) as orders from orders o
 where o.o_orderdate >= date '1993-07-01' and o.o_orderdate < date '1993-10-01'
   and exists (select from lineitem l where l.l_orderkey = o.o_orderkey and l.l_commitdate < l.l_receiptdate)
 group by o.o_orderpriority

-- name: q05
select n.n_name, sum(l.l_extendedprice * (1 - l.l_discount)) as revenue
  from customer c join orders o on o.o_custkey = c.c_custkey join lineitem l on l.l_orderkey = o.o_orderkey
  join supplier s on s.s_suppkey = l.l_suppkey and s.s_nationkey = c.c_nationkey
  join nation n on n.n_nationkey = s.s_nationkey join region r on r.r_regionkey = n.n_regionkey
 where r.r_name = 'ASIA' and o.o_orderdate >= date '1994-01-01' and o.o_orderdate < date '1995-01-01' group by n.n_name

-- name: q06
select sum(l_extendedprice * l_discount) as revenue from lineitem
 where l_shipdate >= date '1994-01-01' and l_shipdate < date '1995-01-01' and l_discount between 0.05 and 0.07 and l_quantity < 24

-- name: q07
select t.supplying, t.buying, t.year, sum(t.volume) as revenue
  from (select sn.n_name as supplying, cn.n_name as buying, extract(year from l.l_shipdate) as year,
               l.l_extendedprice * (1 - l.l_discount) as volume
          from supplier s join lineitem l on l.l_suppkey = s.s_suppkey join orders o on o.o_orderkey = l.l_orderkey
          join customer c on c.c_custkey = o.o_custkey join nation sn on sn.n_nationkey = s.s_nationkey
          join nation cn on cn.n_nationkey = c.c_nationkey
         where (sn.n_name = 'FRANCE' and cn.n_name = 'GERMANY' or sn.n_name = 'GERMANY' and cn.n_name = 'FRANCE')
           and l.l_shipdate between date '1995-01-01' and date '1996-12-31') t
 group by t.supplying, t.buying, t.year

-- name: q08
select t.year, sum(case when t.nation = 'BRAZIL' then t.volume else 0 end) / sum(t.volume) as share
  from (select extract(year from o.o_orderdate) as year, l.l_extendedprice * (1 - l.l_discount) as volume, sn.n_name as nation
          from part p join lineitem l on l.l_partkey = p.p_partkey join supplier s on s.s_suppkey = l.l_suppkey
          join orders o on o.o_orderkey = l.l_orderkey join customer c on c.c_custkey = o.o_custkey
          join nation cn on cn.n_nationkey = c.c_nationkey join region r on r.r_regionkey = cn.n_regionkey
          join nation sn on sn.n_nationkey = s.s_nationkey
         where r.r_name = 'AMERICA' and o.o_orderdate between date '1995-01-01' and date '1996-12-31'
           and p.p_type = 'ECONOMY ANODIZED STEEL') t
 group by t.year

-- name: q09
select t.nation, t.year, sum(t.amount) as profit
  from (select n.n_name as nation, extract(year from o.o_orderdate) as year,
               l.l_extendedprice * (1 - l.l_discount) - ps.ps_supplycost * l.l_quantity as amount
          from part p join lineitem l on l.l_partkey = p.p_partkey join supplier s on s.s_suppkey = l.l_suppkey
          join partsupp ps on ps.ps_partkey = l.l_partkey and ps.ps_suppkey = l.l_suppkey
          join orders o on o.o_orderkey = l.l_orderkey join nation n on n.n_nationkey = s.s_nationkey
         where p.p_name like '%green%') t
 group by t.nation, t.year

-- name: q10
select c.c_custkey, c.c_name, sum(l.l_extendedprice * (1 - l.l_discount)) as revenue, c.c_acctbal, n.n_name, c.c_address, c.c_phone, c.c_comment
  from customer c join orders o on o.o_custkey = c.c_custkey join lineitem l on l.l_orderkey = o.o_orderkey
  join nation n on n.n_nationkey = c.c_nationkey
 where o.o_orderdate >= date '1993-10-01' and o.o_orderdate < date '1994-01-01' and l.l_returnflag = 'R'
 group by c.c_custkey, c.c_name, c.c_acctbal, c.c_phone, n.n_name, c.c_address, c.c_comment
 order by revenue desc, c.c_custkey limit 20

-- name: q11
select ps.ps_partkey, sum(ps.ps_supplycost * ps.ps_availqty) as value
  from partsupp ps join supplier s on s.s_suppkey = ps.ps_suppkey join nation n on n.n_nationkey = s.s_nationkey
 where n.n_name = 'GERMANY' group by ps.ps_partkey
having sum(ps.ps_supplycost * ps.ps_availqty) > (
    select sum(ps2.ps_supplycost * ps2.ps_availqty) * 0.001 from partsupp ps2 join supplier s2 on s2.s_suppkey = ps2.ps_suppkey
      join nation n2 on n2.n_nationkey = s2.s_nationkey where n2.n_name = 'GERMANY')

-- name: q12
select l.l_shipmode, sum(case when o.o_orderpriority in ('1-URGENT', '2-HIGH') then 1 else 0 end) as urgent,
       sum(case when o.o_orderpriority not in ('1-URGENT', '2-HIGH') then 1 else 0 end) as others
  from orders o join lineitem l on l.l_orderkey = o.o_orderkey
 where l.l_shipmode in ('MAIL', 'SHIP') and l.l_commitdate < l.l_receiptdate and l.l_shipdate < l.l_commitdate
   and l.l_receiptdate >= date '1994-01-01' and l.l_receiptdate < date '1995-01-01'
 group by l.l_shipmode

-- name: q13
select t.orders, count(*) as customers
  from (select c.c_custkey, count(o.o_orderkey) as orders from customer c
          left join orders o on o.o_custkey = c.c_custkey and o.o_comment not like '%special%requests%' group by c.c_custkey) t
 group by t.orders

-- name: q14
select 100.00 * sum(case when p.p_type like 'PROMO%' then l.l_extendedprice * (1 - l.l_discount) else 0 end)
       / sum(l.l_extendedprice * (1 - l.l_discount)) as promotion
  from lineitem l join part p on p.p_partkey = l.l_partkey
 where l.l_shipdate >= date '1995-09-01' and l.l_shipdate < date '1995-10-01'

-- name: q15
with revenue as (
    select l_suppkey as suppkey, sum(l_extendedprice * (1 - l_discount)) as total from lineitem
     where l_shipdate >= date '1996-01-01' and l_shipdate < date '1996-04-01' group by l_suppkey)
select s.s_suppkey, s.s_name, s.s_address, s.s_phone, r.total from supplier s join revenue r on r.suppkey = s.s_suppkey
 where r.total = (select max(total) from revenue)

-- name: q16
select p.p_brand, p.p_type, p.p_size, count(distinct ps.ps_suppkey) as suppliers
  from partsupp ps join part p on p.p_partkey = ps.ps_partkey
 where p.p_brand <> 'Brand#45' and p.p_type not like 'MEDIUM POLISHED%' and p.p_size in (49, 14, 23, 45, 19, 3, 36, 9)
   and ps.ps_suppkey not in (select s_suppkey from supplier where s_comment like '%Customer%Complaints%')
 group by p.p_brand, p.p_type, p.p_size

-- name: q17
select sum(l.l_extendedprice) / 7.0 as yearly from lineitem l join part p on p.p_partkey = l.l_partkey
 where p.p_brand = 'Brand#23' and p.p_container = 'MED BOX'
   and l.l_quantity < (select 0.2 * avg(l2.l_quantity) from lineitem l2 where l2.l_partkey = p.p_partkey)

-- name: q18
select c.c_name, c.c_custkey, o.o_orderkey, o.o_orderdate, o.o_totalprice, sum(l.l_quantity) as quantity
  from customer c join orders o on o.o_custkey = c.c_custkey join lineitem l on l.l_orderkey = o.o_orderkey
 where o.o_orderkey in (select l_orderkey from lineitem group by l_orderkey having sum(l_quantity) > 250)
 group by c.c_name, c.c_custkey, o.o_orderkey, o.o_orderdate, o.o_totalprice
 order by o.o_totalprice desc, o.o_orderdate, o.o_orderkey limit 100

-- name: q19
select sum(l.l_extendedprice * (1 - l.l_discount)) as revenue from lineitem l join part p on p.p_partkey = l.l_partkey
 where l.l_shipmode in ('AIR', 'REG AIR') and l.l_shipinstruct = 'DELIVER IN PERSON'
   and (p.p_brand = 'Brand#12' and p.p_container in ('SM CASE', 'SM BOX', 'SM PACK', 'SM PKG') and l.l_quantity between 1 and 11 and p.p_size <= 5
        or p.p_brand = 'Brand#23' and p.p_container in ('MED BAG', 'MED BOX', 'MED PKG', 'MED PACK') and l.l_quantity between 10 and 20 and p.p_size <= 10
        or p.p_brand = 'Brand#34' and p.p_container in ('LG CASE', 'LG BOX', 'LG PACK', 'LG PKG') and l.l_quantity between 20 and 30 and p.p_size <= 15)

-- name: q20
select s.s_name, s.s_address from supplier s join nation n on n.n_nationkey = s.s_nationkey
 where n.n_name = 'CANADA' and s.s_suppkey in (
     select ps.ps_suppkey from partsupp ps
      where ps.ps_partkey in (select p_partkey from part where p_name like 'forest%')
        and ps.ps_availqty > (select 0.5 * sum(l.l_quantity) from lineitem l
                               where l.l_partkey = ps.ps_partkey and l.l_suppkey = ps.ps_suppkey
                                 and l.l_shipdate >= date '1994-01-01' and l.l_shipdate < date '1995-01-01'))

-- name: q21
select s.s_name, count(*) as waiting
  from supplier s join lineitem l on l.l_suppkey = s.s_suppkey join orders o on o.o_orderkey = l.l_orderkey
  join nation n on n.n_nationkey = s.s_nationkey
 where o.o_orderstatus = 'F' and l.l_receiptdate > l.l_commitdate and n.n_name = 'SAUDI ARABIA'
   and exists (select from lineitem l2 where l2.l_orderkey = l.l_orderkey and l2.l_suppkey <> l.l_suppkey)
   and not exists (select from lineitem l3 where l3.l_orderkey = l.l_orderkey and l3.l_suppkey <> l.l_suppkey
                                             and l3.l_receiptdate > l3.l_commitdate)
 group by s.s_name order by waiting desc, s.s_name limit 100

-- name: q22
select substring(c.c_phone from 1 for 2) as country, count(*) as customers, sum(c.c_acctbal) as balance from customer c
 where substring(c.c_phone from 1 for 2) in ('13', '31', '23', '29', '30', '18', '17')
   and c.c_acctbal > (select avg(c2.c_acctbal) from customer c2
                       where c2.c_acctbal > 0 and substring(c2.c_phone from 1 for 2) in ('13', '31', '23', '29', '30', '18', '17'))
   and not exists (select from orders o where o.o_custkey = c.c_custkey)
 group by substring(c.c_phone from 1 for 2)
