-- Leaky bucket as a meter (GCRA): a unit pours an interval into a bucket that drains by one a µs, and what
-- would overflow is refused. One number says all: when the bucket will have drained.
--
-- KEYS[1]  string: the theoretical arrival time in µs, at which the bucket is empty
-- ARGV     limit, window in µs, cost, 1 to spend or 0 to look
-- reply    {allowed 1 or 0, remaining, µs until there is room for cost, µs until the whole limit is free}
local limit, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local interval = math.ceil(window / limit)
local capacity = limit * interval

local now = now_us()
local drained = math.max(now, tonumber(redis.call('GET', KEYS[1]) or now))
local wait = math.max(0, drained + cost * interval - capacity - now)
if wait == 0 and ARGV[4] == '1' then
  drained = drained + cost * interval
  -- The expiry is for clean-up only, and never early.
  redis.call('SET', KEYS[1], drained, 'PX', math.ceil(capacity / 1000) + 1)
end
return {wait == 0 and 1 or 0, math.max(0, math.floor((capacity - drained + now) / interval)), wait, drained - now}
