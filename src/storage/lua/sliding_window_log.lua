-- Sliding window log: never more than `limit` units in any window, exactly. A unit let through at t has left
-- at t + window. A list, at 10 bytes a unit; a sorted set takes 100, and needs names for its members.
--
-- needs    `now.lua`, `quota.lua`
-- key      list: the time in µs of each unit let through, oldest first

-- Return {allowed 1 or 0, remaining, µs until there is room for cost, µs until the whole limit is free}.
local function hit(key, cost, spend)
  -- Each unit is pushed once and popped once, so a hit costs the same however large the limit is.
  local oldest = tonumber(redis.call('LINDEX', key, 0))
  while oldest and now - oldest >= window do
    redis.call('LPOP', key)
    oldest = tonumber(redis.call('LINDEX', key, 0))
  end

  local used = redis.call('LLEN', key)
  local wait = 0
  if used + cost > limit then
    wait = redis.call('LINDEX', key, used + cost - limit - 1) + window - now
  elseif spend then
    for _ = 1, cost do
      redis.call('RPUSH', key, now)
    end
    used = used + cost
    redis.call('PEXPIRE', key, math.ceil(window / 1000) + 1) -- clean-up only, never early
  end

  local newest = used > 0 and tonumber(redis.call('LINDEX', key, -1)) or now - window
  return {wait == 0 and 1 or 0, math.max(0, limit - used), wait, newest + window - now}
end
