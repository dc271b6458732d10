-- Postpones the next slot. Never makes a slot due sooner.
--
-- KEYS     those of queue.lua
-- ARGV[1]  the delay in µs
-- Reply    the µs until the next slot may be assigned
--
-- @include queue
local not_before = math.max(postponed_until(), now + ARGV[1])
redis.call('HSET', PACE, 'not_before_us', whole(not_before), 'postponed_us', whole(now))
return not_before - now
