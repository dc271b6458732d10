-- Fixed window: a count that starts anew with the first hit after the window has ended.
--
-- KEYS[1]  hash: start of the window in µs, count
-- ARGV     limit, window in µs, cost, 1 to spend or 0 to look
-- reply    {allowed 1 or 0, remaining, µs until there is room for cost, µs until the whole limit is free}
local limit, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_us()

local state = redis.call('HMGET', KEYS[1], 'start', 'count')
local start, count = tonumber(state[1] or now), tonumber(state[2] or 0)
if now - start >= window then
  start, count = now, 0
end

local wait = 0
if count + cost > limit then
  wait = start + window - now
elseif ARGV[4] == '1' then
  count = count + cost
  redis.call('HSET', KEYS[1], 'start', start, 'count', count)
  redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000) + 1) -- clean-up only, never early
end

local reset = count > 0 and start + window - now or 0
return {wait == 0 and 1 or 0, math.max(0, limit - count), wait, reset}
