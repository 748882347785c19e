-- Lets consumers that wait look at the queue.
--
-- KEYS: the wake list; the queue, which is not read: two keys, so that every node of a cluster refuses this, also one
-- that has both. ARGV: how many wakes to add, how many to keep, seconds to keep them.
for _ = 1, ARGV[1] do
    redis.call('rpush', KEYS[1], '1')
end
redis.call('ltrim', KEYS[1], -ARGV[2], -1)
redis.call('expire', KEYS[1], ARGV[3])
