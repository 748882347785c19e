-- Takes one message: {} if there is none, {id, message, how many are left} otherwise, {id, size, ...} if its size is not that of
-- a message.
--
-- KEYS: the list of ids, the hash of id -> message, the set of ids taken and not acknowledged, the heartbeats.
-- ARGV: the time in milliseconds, the id of this broker, the largest size of a message, the largest of an id.
redis.call('zadd', KEYS[4], ARGV[1], ARGV[2])
local id = redis.call('lpop', KEYS[1])
if not id then
    return {}
end
local size = redis.call('hstrlen', KEYS[2], id)
if size == 0 or size > tonumber(ARGV[3]) or #id > tonumber(ARGV[4]) then
    redis.call('hdel', KEYS[2], id)
    return {'', size, redis.call('llen', KEYS[1])}
end
redis.call('sadd', KEYS[3], id)
return {id, redis.call('hget', KEYS[2], id), redis.call('llen', KEYS[1])}
