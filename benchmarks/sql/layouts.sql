-- Three ways to store the messages of 20 outboxes, each with ten ranges of ids where it has ranges. Same columns, same key.
create schema bench;
create sequence bench.ids start with 5000000;
select nextval('bench.ids');

create table bench.plain_7 (like tide.message including defaults including constraints, primary key (outbox_id, id));

create table bench.one_7 (like tide.message including defaults including constraints, primary key (outbox_id, id))
    partition by range (id);

create table bench.two (like tide.message including defaults including constraints, primary key (outbox_id, id))
    partition by list (outbox_id);

do $$
begin
    for outbox in 1..20 loop
        execute format('create table bench.two_%s partition of bench.two for values in (%s) partition by range (id)', outbox, outbox);
        for n in 0..9 loop
            execute format('create table bench.two_%s_%s partition of bench.two_%s for values from (%s) to (%s)',
                           outbox, n, outbox, n * 1000000, (n + 1) * 1000000);
        end loop;
    end loop;
    for n in 0..9 loop
        execute format('create table bench.one_7_%s partition of bench.one_7 for values from (%s) to (%s)',
                       n, n * 1000000, (n + 1) * 1000000);
    end loop;
end $$;
