-- Gives no turn for a while. Never brings one forward.
--
-- KEYS     those of paced.lua
-- ARGV[1]  µs
-- reply    µs until the first turn may be given
local not_before = math.max(get('not_before_us') or 0, now + ARGV[1])
redis.call('HSET', PACE, 'not_before_us', whole(not_before))
return not_before - now
