-- Decides who computes an answer: nobody if there is one already, or else the holder of the lease.
--
-- KEYS[1] lease  KEYS[2] entry  KEYS[3] cost
-- ARGV[1] token  ARGV[2] lease, ms  ARGV[3] ttl, ms  ARGV[4] an entry begun less than this long ago, ms, will do
--
-- An entry was begun, which is to say its lease was taken, its age and its cost ago. Redis' milliseconds are
-- whole: that figure may be up to 1 ms short, which a limit rounded down to whole milliseconds makes good.
--
-- Reply: {body, remaining ms, cost ms} of an entry that will do; 1 lease taken; 0 lease held by another.
--
-- @include lease

local body = redis.call('GET', KEYS[2])
local cost = redis.call('GET', KEYS[3])
local remaining = redis.call('PTTL', KEYS[2])
local age = ARGV[3] - remaining -- negative if since then the ttl was made shorter, or the clock set back
if body and cost and remaining > 0 and age >= 0 and age + cost < tonumber(ARGV[4]) then
  return {body, remaining, cost}
end
return take_lease(KEYS[1], ARGV[1], ARGV[2], ARGV[2]) and 1 or 0
