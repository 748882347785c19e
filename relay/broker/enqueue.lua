-- Puts a message on a queue and lets one consumer that waits look at it.
--
-- KEYS: the wake list, the hash of id -> message, the list of ids. ARGV: the id, the message, how many wakes to keep, seconds to
-- keep them. The id comes last, as what may be of the wrong type stops the script: a message is on the queue once.
redis.call('rpush', KEYS[1], '1')
redis.call('ltrim', KEYS[1], -ARGV[3], -1)
redis.call('expire', KEYS[1], ARGV[4])
redis.call('hset', KEYS[2], ARGV[1], ARGV[2])
redis.call('rpush', KEYS[3], ARGV[1])
