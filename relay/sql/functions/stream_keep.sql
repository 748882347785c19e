-- Plans: the statements of incremental refreshes, as a worker derived them from the query, and as PostgreSQL judged them.

-- Removes what is kept of a plan.
create or replace function tide.stream_forget_plan(stream_id int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    relation record;
begin
    for relation in select c.relname, c.relkind from pg_class c
                     where c.relnamespace = 'tide_stream'::regnamespace
                       and (c.relname ~ format('^w_%s_[0-9]+$', stream_id) or c.relname = any (array[format('o_%s', stream_id), format('f_%s', stream_id)]))
                     order by c.relname
    loop
        execute format('drop view tide_stream.%I', relation.relname);
    end loop;
    execute format('drop table if exists tide_stream.s_%s', stream_id);
    delete from tide.stream_plan p where p.stream_id = stream_forget_plan.stream_id;
end $$;
