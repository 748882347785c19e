-- Whether the code on a table is harmless, for functions that touch tables of others with the rights of this schema's owner.
--
-- What must not happen: that code of others runs with these rights, because a function of ours reads or writes a table
-- for which they have made triggers, rules, defaults, constraints, policies, indexes, statistics or types. A table may
-- belong to others, or be in their schema. All that runs in passing must be one of:
--   * a function of PostgreSQL that is immutable, works on dates and times, or is in the list below. Others execute text
--     as SQL, change settings, send notifications, or convert to a type that is only named at run time;
--   * an immutable function of an extension, or one of uuid-ossp;
--   * a function of this schema's owner, or of a role that has its rights anyway: the owner thereby trusts it. Those of
--     tide-relay are not meant: they do for their owner what their caller may not;
--   * a type of PostgreSQL, of an extension or of such an owner, and all that it consists of.
-- Functions are read from the stored expressions: pg_depend does not mention those of PostgreSQL.

create or replace function tide.is_trusted(role oid) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return exists (select from pg_roles r where r.oid = role and (r.rolsuper or pg_has_role(r.oid, current_user, 'member')));
end $$;

-- The functions, operators and types of a stored expression. A row of nulls: something that is not known, such as a query,
-- or more than can be looked at for each write. nextval (1574) of a sequence that is named is left out: pg_depend has the
-- sequence. A type that PostgreSQL does not come with has a number from 16384 on.
create or replace function tide.expression_uses(tree pg_node_tree) returns table (class_id oid, object_id oid)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    nodes text := tree::text;
begin
    if nodes is null then
        return;
    elsif strpos(nodes, ' :funcid 1574 ') > 0 then
        nodes := regexp_replace(nodes, E' :funcid 1574 ([^({]*:args \\(\\{CONST :consttype 2205 )', E' \\1', 'g');
    end if;
    return query
        select distinct case m[2] when 'funcid' then 'pg_proc'::regclass::oid when 'opno' then 'pg_operator'::regclass::oid
                                  else case when m[1] is null then 'pg_type'::regclass::oid end end, m[3]::oid
          from regexp_matches(left(nodes, 65536), E'\\{([A-Z_]+)| :(funcid|opno|\\w*typ(?!mod)\\w*) (\\d+)', 'g') m
         where case when m[1] is not null then m[1] <> all (array[
                        'CONST', 'VAR', 'FUNCEXPR', 'OPEXPR', 'DISTINCTEXPR', 'NULLIFEXPR', 'SCALARARRAYOPEXPR', 'BOOLEXPR',
                        'RELABELTYPE', 'COERCEVIAIO', 'ARRAYCOERCEEXPR', 'CONVERTROWTYPEEXPR', 'COLLATEEXPR', 'COLLATE', 'CASEEXPR',
                        'CASE', 'CASEWHEN', 'WHEN', 'CASETESTEXPR', 'ARRAYEXPR', 'ARRAY', 'ROWEXPR', 'ROW', 'COALESCEEXPR', 'COALESCE',
                        'MINMAXEXPR', 'MINMAX', 'SQLVALUEFUNCTION', 'NULLTEST', 'BOOLEANTEST', 'COERCETODOMAIN',
                        'COERCETODOMAINVALUE', 'SUBSCRIPTINGREF', 'FIELDSELECT', 'FIELDSTORE', 'NAMEDARGEXPR',
                        'JSONCONSTRUCTOREXPR', 'JSONISPREDICATE', 'JSONVALUEEXPR', 'JSONFORMAT', 'JSONRETURNING', 'XMLEXPR'])
                    else m[2] in ('funcid', 'opno') or m[3]::bigint >= 16384 end
         union all
        select null, null where length(nodes) > 65536;
end $$;

-- What a type of a trusted owner consists of, and what is called for its values.
create or replace function tide.type_uses(type oid) returns table (class_id oid, object_id oid)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if not tide.is_trusted((select t.typowner from pg_type t where t.oid = type)) then
        return;
    end if;
    return query
    select 'pg_type'::regclass::oid, inside.oid
      from pg_type t
     cross join lateral (
        select t.typelem union select t.typbasetype
         union select a.atttypid from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
         union select r.rngsubtype from pg_range r where type in (r.rngtypid, r.rngmultitypid)) inside (oid)
     where t.oid = type and inside.oid >= 16384
     union
    select 'pg_proc'::regclass::oid, f.oid
      from pg_range r cross join lateral (values (r.rngcanonical::oid), (r.rngsubdiff::oid)) f (oid)
     where type in (r.rngtypid, r.rngmultitypid) and f.oid <> 0
     union
    select u.class_id, u.object_id from pg_type t cross join lateral tide.expression_uses(t.typdefaultbin) u where t.oid = type
     union
    select u.class_id, u.object_id from pg_constraint c cross join lateral tide.expression_uses(c.conbin) u where c.contypid = type;
end $$;

create or replace function tide.function_is_harmless(function oid) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return (select case
        when f.oid < 16384 and f.prorettype = 'trigger'::regtype then
            f.proname like E'RI\\_FKey\\_%' or f.proname in ('suppress_redundant_updates_trigger', 'tsvector_update_trigger',
                                                          'tsvector_update_trigger_column', 'unique_key_recheck')
        when f.oid < 16384 then
            f.provolatile = 'i'
            or f.provolatile = 's' and f.proargtypes::oid[] && array['date', 'time', 'timetz', 'timestamp', 'timestamptz', 'interval']::regtype[]::oid[]
            or f.proname in (
                'now', 'transaction_timestamp', 'statement_timestamp', 'clock_timestamp', 'timeofday', 'to_timestamp', 'to_date',
                'to_char', 'gen_random_uuid', 'uuidv4', 'uuidv7', 'random', 'current_user', 'session_user', 'getpgusername',
                'current_database', 'current_schema', 'current_setting', 'pg_current_xact_id', 'txid_current', 'concat', 'concat_ws',
                'format', 'array_to_string', 'to_json', 'to_jsonb', 'row_to_json', 'json_build_object', 'jsonb_build_object',
                'json_build_array', 'jsonb_build_array', 'to_tsvector')
        when n.nspname in ('tide', 'pgtrickle') then
            f.oid in ('tide.inbox_notify'::regproc, 'tide.inbox_failed'::regproc, 'tide.table_outbox_changed'::regproc,
                      'tide.table_routed'::regproc)
        when e.extname is not null then
            tide.is_trusted(f.proowner) and (f.provolatile = 'i' or e.extname = 'uuid-ossp')
        else
            r.rolname = current_user or not r.rolsuper and pg_has_role(r.oid, current_user, 'member')
        end
      from pg_proc f
      join pg_namespace n on n.oid = f.pronamespace
      join pg_roles r on r.oid = f.proowner
      left join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = f.oid and d.deptype = 'e'
      left join pg_extension e on e.oid = d.refobjid and d.refclassid = 'pg_extension'::regclass
     where f.oid = function);
end $$;

-- The type of a column, and whether the table is one of ours as we make them, but for functions of PostgreSQL in expressions,
-- which its owner alone can make: so the usual inbox is not looked at in full for each write.
-- PostgreSQL notes in pg_class that a table has had rules, children or policies that count. Primary keys, unique and NOT NULL
-- constraints have no code; neither have indexes on plain columns, as only a superuser makes operator classes. The types of
-- columns are among what the table itself depends on. An SQL function without settings: it becomes a part of its caller's plan.
create or replace function tide.inbox_look_at(relation regclass, id_col name) returns table (is_plain boolean, id_type text)
language sql stable rows 1
begin atomic
    select c.relowner = current_user::regrole and not (c.relispartition or c.relhasrules or c.relhassubclass or c.relrowsecurity)
           and not exists (select from pg_trigger g
                            where g.tgrelid = c.oid
                              and (g.tgname, g.tgfoid, coalesce(g.tgnewtable, '')) not in (
                                  ('tide_inbox', 'tide.inbox_notify'::regproc, 'arrived'), ('tide_inbox_failed', 'tide.inbox_failed'::regproc, '')))
           and not exists (select from pg_statistic_ext s where s.stxrelid = c.oid)
           and not exists (
               select from (select 'pg_class'::regclass::oid, c.oid
                             union all select 'pg_attrdef'::regclass, d.oid from pg_attrdef d where d.adrelid = c.oid
                             union all select 'pg_constraint'::regclass, k.oid from pg_constraint k
                                        where k.conrelid = c.oid and k.contype not in ('p', 'u', 'n')
                             union all select 'pg_class'::regclass, x.indexrelid from pg_index x
                                        where x.indrelid = c.oid and (x.indexprs is not null or x.indpred is not null or x.indisexclusion)
                           ) p (class_id, object_id)
                 join pg_depend d on d.classid = p.class_id and d.objid = p.object_id
                where d.refclassid in ('pg_proc'::regclass, 'pg_type'::regclass, 'pg_operator'::regclass)),
           (select format_type(a.atttypid, null) from pg_attribute a where a.attrelid = c.oid and a.attname = id_col)
      from pg_class c where c.oid = relation;
end;

-- The same, as the catalogs are now: a volatile function has a snapshot of its own. Under REPEATABLE READ there is no such snapshot,
-- so there nothing is known to be plain.
create or replace function tide.inbox_looks_plain(relation regclass, id_col name, id_type text) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    return current_setting('transaction_isolation') = 'read committed'
       and coalesce((select p.is_plain and p.id_type = inbox_looks_plain.id_type from tide.inbox_look_at(relation, id_col) p), false);
end $$;

-- The same for writes, which do not look while the table is as it was. It is not immutable, and is called so on purpose: with constants,
-- PostgreSQL computes it when it plans the expression, and keeps the answer with the plan. A constant of type regclass makes the plan
-- depend on that table: whatever changes the table, and so all that is looked at, has PostgreSQL plan again. It receives that when it
-- takes a lock, so who has just locked the table against changes has the answer of now.
create or replace function tide.inbox_is_plain(relation regclass, id_col name, id_type text) returns boolean
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    return tide.inbox_looks_plain(relation, id_col, id_type);
end $$;

-- The code on a table that is not known to be harmless, as a sentence for people, or null. Rows of tables that refer to
-- this one and are deleted or changed with its rows count as its own; those of tables that inherit from it would, and
-- are not needed.
create or replace function tide.inbox_code_of_others(relation regclass) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
-- Catalogs grow: always along their indexes, by one plan.
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    found_code record;
    ended      text;
begin
    with recursive touched (relid, depth) as (
        select relation, 0
         union
        select t.tgconstrrelid::regclass, least(d.depth + 1, 10)
          from touched d join pg_trigger t on t.tgrelid = d.relid
         where t.tgfoid in ('"RI_FKey_cascade_del"'::regproc, '"RI_FKey_setnull_del"'::regproc, '"RI_FKey_setdefault_del"'::regproc,
                            '"RI_FKey_cascade_upd"'::regproc, '"RI_FKey_setnull_upd"'::regproc, '"RI_FKey_setdefault_upd"'::regproc)
    ), part (relid, class_id, object_id, tree) as (
        select t.relid, 'pg_class'::regclass::oid, t.relid::oid, null::pg_node_tree from touched t
         union all select t.relid, 'pg_attrdef'::regclass, d.oid, d.adbin from pg_attrdef d join touched t on d.adrelid = t.relid
         union all select t.relid, 'pg_constraint'::regclass, c.oid, c.conbin from pg_constraint c join touched t on c.conrelid = t.relid
         union all select t.relid, 'pg_trigger'::regclass, g.oid, g.tgqual from pg_trigger g join touched t on g.tgrelid = t.relid
         union all select t.relid, 'pg_class'::regclass, x.indexrelid, x.indexprs from pg_index x join touched t on x.indrelid = t.relid
         union all select t.relid, 'pg_class'::regclass, x.indexrelid, x.indpred from pg_index x join touched t on x.indrelid = t.relid
         union all select t.relid, 'pg_policy'::regclass, l.oid, l.polqual from pg_policy l join touched t on l.polrelid = t.relid
         union all select t.relid, 'pg_policy'::regclass, l.oid, l.polwithcheck from pg_policy l join touched t on l.polrelid = t.relid
         -- The planner computes what is constant in them.
         union all select t.relid, 'pg_statistic_ext'::regclass, s.oid, s.stxexprs from pg_statistic_ext s join touched t on s.stxrelid = t.relid
    ), used (relid, class_id, object_id, code_class, code_id) as (
        select p.relid, p.class_id, p.object_id, d.refclassid, d.refobjid
          from part p join pg_depend d on d.classid = p.class_id and d.objid = p.object_id
         where d.refclassid in ('pg_proc'::regclass, 'pg_type'::regclass, 'pg_operator'::regclass, 'pg_class'::regclass)
           and d.refclassid <> p.class_id
         union
        select p.relid, p.class_id, p.object_id, u.class_id, u.object_id
          from part p cross join lateral tide.expression_uses(p.tree) u
         where p.tree is not null
         union
        select p.relid, p.class_id, p.object_id, 'pg_proc'::regclass, g.tgfoid::oid
          from part p join pg_trigger g on p.class_id = 'pg_trigger'::regclass and g.oid = p.object_id
         union
        select t.relid, 'pg_class'::regclass, t.relid, 'pg_type'::regclass, a.atttypid
          from touched t
         cross join lateral (select c.atttypid from pg_attribute c
                              where c.attrelid = t.relid and c.attnum > 0 and not c.attisdropped and c.atttypid >= 16384 offset 0) a
         union
        select u.relid, u.class_id, u.object_id, i.class_id, i.object_id
          from used u cross join lateral tide.type_uses(u.code_id) i
         where u.code_class = 'pg_type'::regclass and u.code_id >= 16384
    ), called as (
        select u.relid, u.class_id, u.object_id, u.code_class, u.code_id from used u where u.code_class is distinct from 'pg_operator'::regclass
         union
        select u.relid, u.class_id, u.object_id, 'pg_proc'::regclass, o.oprcode
          from used u join pg_operator o on u.code_class = 'pg_operator'::regclass and o.oid = u.code_id
    ), judged as (
        select u.*, coalesce(t.typowner, f.proowner, s.relowner) as owner,
               case when u.code_class is null then 'a query, or more than can be looked at'
                    when s.oid is not null and s.relowner <> c.relowner then 'a sequence of another owner'
                    when g.oid is not null and (g.tgname, g.tgnewtable) is distinct from ('tide_inbox'::name, 'arrived'::name)
                    then 'other transition tables' end as wrong,
               case when f.oid < 16384 and f.provolatile = 'i' and f.prorettype <> 'trigger'::regtype then true
                    when f.oid is not null then tide.function_is_harmless(f.oid)
                    else s.oid is not null or tide.is_trusted(t.typowner) end as harmless
          from called u
          join pg_class c on c.oid = u.relid
          left join pg_proc f on u.code_class = 'pg_proc'::regclass and f.oid = u.code_id
          left join pg_type t on u.code_class = 'pg_type'::regclass and t.oid = u.code_id
          left join pg_class s on u.code_class = 'pg_class'::regclass and s.oid = u.code_id and s.relkind = 'S'
          left join pg_trigger g on u.class_id = 'pg_trigger'::regclass and g.oid = u.object_id and u.code_id = 'tide.inbox_notify'::regproc
         where u.code_class is null or coalesce(f.oid, t.oid, s.oid) is not null
    )
    select 'pg_class'::regclass::oid as class_id, relation::oid as object_id, 'pg_class'::regclass::oid as code_class,
           t.relid::oid as code_id, c.relowner as owner, null as wrong
      into found_code
      from touched t join pg_class c on c.oid = t.relid where t.depth > 0 and not tide.is_trusted(c.relowner)
     union all
    select j.class_id, j.object_id, j.code_class, j.code_id, j.owner, j.wrong from judged j where j.wrong is not null or not j.harmless
     union all
    -- What a rule does is not looked into, nor who has made the rows of a tree of tables.
    select 'pg_class'::regclass, relation, 'pg_rewrite'::regclass, r.oid, null, null from pg_rewrite r join touched t on r.ev_class = t.relid
     union all
    select 'pg_class'::regclass, relation, 'pg_class'::regclass, i.inhrelid, null, null from pg_inherits i join touched t on i.inhparent = t.relid
     union all
    select 'pg_class'::regclass, relation, 'pg_class'::regclass, i.inhparent, null, 'it is a partition'
      from pg_inherits i join pg_class c on c.oid = i.inhrelid and c.relispartition where i.inhrelid = relation
     limit 1;
    ended := case when found_code.wrong is not null then format(' (%s)', found_code.wrong)
                  when tide.is_trusted(found_code.owner) then ', which is not known to be harmless'
                  when found_code.owner is not null then ', which belongs to ' || quote_ident(pg_get_userbyid(found_code.owner)) end;
    return format('%s uses %s', pg_describe_object(found_code.class_id, found_code.object_id, 0),
                  coalesce(pg_describe_object(found_code.code_class, found_code.code_id, 0), 'code')) || coalesce(ended, '')
        where found_code.class_id is not null;
end $$;
