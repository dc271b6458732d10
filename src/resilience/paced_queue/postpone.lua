-- Gives no turn for a while. Never brings one forward.
--
-- KEYS     those of queue.lua
-- ARGV[1]  µs
-- reply    µs until the first turn may be given
--
-- @include queue
local not_before = math.max(postponed_until(), now + ARGV[1])
redis.call('HSET', PACE, 'not_before_us', whole(not_before), 'postponed_us', whole(now))
return not_before - now
