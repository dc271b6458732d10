-- Fails where a measurement could not be stored. Changes nothing: the key never exists, and no type has no name.
--
-- KEYS  types   as in metrics_add.lua
-- ARGV  a key like those of a type's measurements, which metrics_add.lua makes itself too
-- Reply 1
--
-- A write reads the time, so that this includes reading it.
--
-- @include ../../resilience/redis/now
local absent = ARGV[1]

redis.call('ZADD', KEYS[1], 'XX', 'GT', 0, '')
redis.call('SET', absent, '', 'XX')
redis.call('SETRANGE', absent, 0, '')
redis.call('HDEL', absent, '')
redis.call('EXPIRE', absent, 1)
return 1
