begin;
select offset_id from bench.progress for update \gset
select id, key, payload, headers, created_at from tide.message
 where outbox_id = $outbox_id and id > :offset_id order by id limit $batch \aset
update bench.progress set offset_id = :id;
commit;
