-- Sliding window log: never more than `limit` units in any window, exactly. A unit let through at t has left
-- at t + window. A list, at 10 bytes a unit; a sorted set takes 100, and needs names for its members.
--
-- KEYS[1]  list: the time in µs of each unit let through, oldest first
-- ARGV     limit, window in µs, cost, 1 to spend or 0 to look
-- reply    {allowed 1 or 0, remaining, µs until there is room for cost, µs until the whole limit is free}
local limit, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_us()

-- Each unit is pushed once and popped once, so a hit costs the same however large the limit is.
local oldest = tonumber(redis.call('LINDEX', KEYS[1], 0))
while oldest and now - oldest >= window do
  redis.call('LPOP', KEYS[1])
  oldest = tonumber(redis.call('LINDEX', KEYS[1], 0))
end

local used = redis.call('LLEN', KEYS[1])
local wait = 0
if used + cost > limit then
  wait = redis.call('LINDEX', KEYS[1], used + cost - limit - 1) + window - now
elseif ARGV[4] == '1' then
  for _ = 1, cost do
    redis.call('RPUSH', KEYS[1], now)
  end
  used = used + cost
  redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000) + 1) -- clean-up only, never early
end

local newest = used > 0 and tonumber(redis.call('LINDEX', KEYS[1], -1)) or now - window
return {wait == 0 and 1 or 0, math.max(0, limit - used), wait, newest + window - now}
