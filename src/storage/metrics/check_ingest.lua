-- Raises an error if a measurement could not be stored. Changes nothing, because the commands only update members and
-- keys that exist: no type has an empty name, and the given key never exists.
--
-- KEYS   the set of types, as in metrics_add.lua
-- ARGV   a key that never exists, with the prefix of the keys that metrics_add.lua writes
-- Reply  1
--
-- The script includes now.lua, because a write reads the server's time too.
--
-- @include ../../resilience/redis/now
local absent = ARGV[1]

redis.call('ZADD', KEYS[1], 'XX', 'GT', 0, '')
redis.call('SET', absent, '', 'XX')
redis.call('SETRANGE', absent, 0, '')
redis.call('HDEL', absent, '')
redis.call('EXPIRE', absent, 1)
return 1
