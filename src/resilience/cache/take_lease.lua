-- Decides which worker computes an answer: no worker if a sufficient entry exists, otherwise the holder of the lease.
--
-- KEYS[1] lease  KEYS[2] entry  KEYS[3] cost
-- ARGV[1] token  ARGV[2] length of the lease, ms  ARGV[3] ttl, ms
-- ARGV[4] an entry suffices if its computation began less than this many ms ago
--
-- The computation of an entry began `age + cost` ms ago. Redis rounds to whole ms, so that this sum may be up to 1 ms
-- too small. The caller therefore rounds ARGV[4] down.
--
-- Reply: {body, remaining ms, cost ms} of a sufficient entry; 1 if the lease was taken; 0 if another worker holds it.
--
-- @include lease

local body = redis.call('GET', KEYS[2])
local cost = redis.call('GET', KEYS[3])
local remaining = redis.call('PTTL', KEYS[2])
local age = ARGV[3] - remaining -- negative if the ttl option was shortened or the clock was set back since then
if body and cost and remaining > 0 and age >= 0 and age + cost < tonumber(ARGV[4]) then
  return {body, remaining, cost}
end
return take_lease(KEYS[1], ARGV[1], ARGV[2], ARGV[2]) and 1 or 0
