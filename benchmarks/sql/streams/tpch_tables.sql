-- The tables of TPC-H, with rows of our own making: as many as :rows orders need.

-- name: tables
create table region (r_regionkey int primary key, r_name text not null, r_comment text not null);
create table nation (
    n_nationkey int primary key, n_name text not null, n_regionkey int not null, n_comment text not null
);
create table supplier (
    s_suppkey int primary key, s_name text not null, s_address text not null, s_nationkey int not null,
    s_phone text not null, s_acctbal numeric(15, 2) not null, s_comment text not null
);
create table part (
    p_partkey int primary key, p_name text not null, p_mfgr text not null, p_brand text not null, p_type text not null,
    p_size int not null, p_container text not null, p_retailprice numeric(15, 2) not null, p_comment text not null
);
create table partsupp (
    ps_partkey int not null, ps_suppkey int not null, ps_availqty int not null, ps_supplycost numeric(15, 2) not null,
    ps_comment text not null, primary key (ps_partkey, ps_suppkey)
);
create table customer (
    c_custkey int primary key, c_name text not null, c_address text not null, c_nationkey int not null,
    c_phone text not null, c_acctbal numeric(15, 2) not null, c_mktsegment text not null, c_comment text not null
);
create table orders (
    o_orderkey int primary key, o_custkey int not null, o_orderstatus text not null, o_totalprice numeric(15, 2) not null,
    o_orderdate date not null, o_orderpriority text not null, o_clerk text not null, o_shippriority int not null,
    o_comment text not null
);
create table lineitem (
    l_orderkey int not null, l_partkey int not null, l_suppkey int not null, l_linenumber int not null,
    l_quantity numeric(15, 2) not null, l_extendedprice numeric(15, 2) not null, l_discount numeric(15, 2) not null,
    l_tax numeric(15, 2) not null, l_returnflag text not null, l_linestatus text not null, l_shipdate date not null,
    l_commitdate date not null, l_receiptdate date not null, l_shipinstruct text not null, l_shipmode text not null,
    l_comment text not null, primary key (l_orderkey, l_linenumber)
);
create table bench.size as select :rows as orders, :rows / 10 as customers, :rows * 2 / 15 as parts, :rows / 150 as suppliers;

create function bench.one_of(variadic words text[]) returns text language sql volatile
    return words[1 + floor(random() * cardinality(words))];
create function bench.up_to(most int) returns int language sql volatile return 1 + floor(random() * most)::int;

-- Of three customers, one never orders.
create function bench.add_orders(first int, number int) returns void language sql begin atomic
    insert into orders
    select first + i, c.custkey - (c.custkey % 3 = 0)::int, bench.one_of('O', 'F', 'P'), bench.up_to(40000000) / 100.0,
           date '1992-01-01' + bench.up_to(2400), bench.one_of('1-URGENT', '2-HIGH', '3-MEDIUM', '4-NOT SPECIFIED', '5-LOW'),
           'Clerk#' || bench.up_to(1000), 0,
           bench.one_of('packed with care', 'special requests of the buyer', 'as last month', 'to be called before')
      from bench.size, generate_series(1, number) i cross join lateral (select bench.up_to(size.customers - 1) + i * 0 + 1 as custkey) c;
    insert into lineitem
    select o.o_orderkey, l.partkey, ps.ps_suppkey, l.n, l.quantity, l.quantity * p.p_retailprice, bench.up_to(11) / 100.0 - 0.01,
           bench.up_to(9) / 100.0 - 0.01, case when l.receipt <= date '1995-06-17' then bench.one_of('R', 'A') else 'N' end,
           case when l.ship > date '1995-06-17' then 'O' else 'F' end, l.ship, o.o_orderdate + 30 + bench.up_to(60), l.receipt,
           bench.one_of('DELIVER IN PERSON', 'COLLECT COD', 'NONE', 'TAKE BACK RETURN'),
           bench.one_of('REG AIR', 'AIR', 'RAIL', 'SHIP', 'TRUCK', 'MAIL', 'FOB'), 'line ' || l.n
      from (select *, bench.up_to(7) as lines from orders where o_orderkey > first and o_orderkey <= first + number) o
     cross join lateral (select n, bench.up_to(size.parts) as partkey, bench.up_to(50) as quantity, o.o_orderdate + s.days as ship,
                                o.o_orderdate + s.days + bench.up_to(30) as receipt
                           from bench.size, (select n, bench.up_to(121) as days from generate_series(1, o.lines) n) s) l
      join part p on p.p_partkey = l.partkey
      join partsupp ps on ps.ps_partkey = l.partkey and ps.ps_suppkey = (l.partkey + l.n % 4 * (select suppliers / 4 + 1 from bench.size))
                                                                        % (select suppliers from bench.size) + 1;
end;

-- name: rows
select setseed(0.5);
insert into region select n - 1, name, 'a part of the world'
  from unnest(array['AFRICA', 'AMERICA', 'ASIA', 'EUROPE', 'MIDDLE EAST']) with ordinality t (name, n);
insert into nation select n - 1, name, place, 'a country'
  from unnest(array['ALGERIA', 'ARGENTINA', 'BRAZIL', 'CANADA', 'EGYPT', 'ETHIOPIA', 'FRANCE', 'GERMANY', 'INDIA', 'INDONESIA', 'IRAN',
                    'IRAQ', 'JAPAN', 'JORDAN', 'KENYA', 'MOROCCO', 'MOZAMBIQUE', 'PERU', 'CHINA', 'ROMANIA', 'SAUDI ARABIA', 'VIETNAM',
                    'RUSSIA', 'UNITED KINGDOM', 'UNITED STATES'],
              array[0, 1, 1, 1, 4, 0, 3, 3, 2, 2, 4, 4, 2, 4, 0, 0, 0, 1, 2, 3, 4, 2, 3, 3, 1]) with ordinality t (name, place, n);
insert into supplier
select i, 'Supplier#' || i, 'street ' || i, n, 10 + n || '-555-' || i, bench.up_to(1100000) / 100.0 - 1000,
       case when i % 50 = 7 then 'Customer Complaints were heard' else 'reliable' end
  from bench.size, generate_series(1, size.suppliers) i cross join lateral (select bench.up_to(25) - 1 + i * 0 as n) k;
insert into part
select i, bench.one_of('green', 'forest', 'ivory', 'navy', 'plum', 'salmon', 'wheat') || ' ' || bench.one_of('azure', 'green', 'forest', 'tan'),
       'Manufacturer#' || m, 'Brand#' || m || bench.up_to(5),
       bench.one_of('STANDARD', 'SMALL', 'MEDIUM', 'LARGE', 'ECONOMY', 'PROMO') || ' '
       || bench.one_of('ANODIZED', 'BURNISHED', 'PLATED', 'POLISHED', 'BRUSHED') || ' ' || bench.one_of('TIN', 'NICKEL', 'BRASS', 'STEEL', 'COPPER'),
       bench.up_to(50), bench.one_of('SM', 'LG', 'MED', 'JUMBO', 'WRAP') || ' ' || bench.one_of('CASE', 'BOX', 'BAG', 'JAR', 'PKG', 'PACK', 'CAN', 'DRUM'),
       900 + i % 1000 / 10.0, 'part ' || i
  from bench.size, generate_series(1, size.parts) i cross join lateral (select bench.up_to(5) + i * 0 as m) k;
insert into partsupp
select p_partkey, (p_partkey + i * (suppliers / 4 + 1)) % suppliers + 1, bench.up_to(9999), bench.up_to(100000) / 100.0, 'offer ' || i
  from part, bench.size, generate_series(0, 3) i on conflict do nothing;
insert into customer
select i, 'Customer#' || i, 'road ' || i, n, 10 + n || '-555-' || i, bench.up_to(1100000) / 100.0 - 1000,
       bench.one_of('AUTOMOBILE', 'BUILDING', 'FURNITURE', 'MACHINERY', 'HOUSEHOLD'), 'customer ' || i
  from bench.size, generate_series(1, size.customers) i cross join lateral (select bench.up_to(25) - 1 + i * 0 as n) k;
select bench.add_orders(0, :rows);
create index on nation (n_regionkey);
create index on supplier (s_nationkey);
create index on partsupp (ps_suppkey);
create index on customer (c_nationkey);
create index on orders (o_custkey);
create index on lineitem (l_partkey, l_suppkey);
create index on lineitem (l_suppkey);

-- name: insert
select bench.add_orders((select max(o_orderkey) from orders), :n);

-- name: delete
create temporary table gone on commit drop as select o_orderkey as key from orders order by random() limit :n;
delete from lineitem where l_orderkey in (select key from gone);
delete from orders where o_orderkey in (select key from gone);

-- name: update
create temporary table touched on commit drop as select o_orderkey as key from orders order by random() limit :n;
update orders set o_totalprice = o_totalprice + 1, o_orderdate = o_orderdate + 5, o_orderpriority = bench.one_of('1-URGENT', '5-LOW'),
                  o_custkey = case when o_orderkey % 2 = 0 then o_custkey else greatest(o_custkey - 1, 1) end
 where o_orderkey in (select key from touched);
update lineitem set l_quantity = bench.up_to(50), l_discount = bench.up_to(10) / 100.0, l_shipdate = l_shipdate + 3, l_receiptdate = l_receiptdate + 9
 where l_orderkey in (select key from touched);

-- What the specification does not change, a few rows of each: counted for no figure, but judged.
-- name: other_customer
update customer set c_acctbal = bench.up_to(9999), c_mktsegment = 'BUILDING', c_nationkey = c_custkey % 25 where c_custkey % 300 = 5;
insert into customer select max(c_custkey) + 1, 'new', 'new', 6, '16-555', 7000, 'BUILDING', 'new' from customer;

-- name: other_supplier
update supplier set s_acctbal = s_acctbal + 1, s_nationkey = (s_nationkey + 1) % 25 where s_suppkey % 30 = 5;
update supplier set s_comment = 'Customer Complaints' where s_suppkey % 40 = 3;

-- name: other_part
update part set p_name = 'forest ' || p_name, p_size = 15, p_type = 'PROMO BURNISHED BRASS', p_brand = 'Brand#23', p_container = 'MED BOX'
 where p_partkey % 100 = 7;
delete from part where p_partkey % 400 = 9;

-- name: other_partsupp
update partsupp set ps_availqty = ps_availqty / 2, ps_supplycost = ps_supplycost + 1 where ps_partkey % 100 = 3;
delete from partsupp where ps_partkey % 400 = 11;

-- name: other_nation
update nation set n_name = 'GERMANY 2' where n_name = 'GERMANY';
update nation set n_regionkey = 3 where n_nationkey = 4;
