-- Token bucket: holds at most `limit` tokens. Tokens are added evenly, `limit` per window.
--
-- key      hash: debt in µs, the time in µs at which it was counted, interval in µs
--
-- @include ../redis/now
-- @include bucket

-- Decide a hit: {allowed 1 or 0, remaining, µs until there is room for cost, µs until the whole limit is free}.
local function hit(key, cost, spend, limit, window)
  local interval = math.ceil(window / limit)
  local capacity = limit * interval
  local debt, must_store = 0, false
  local state = redis.call('HMGET', key, 'debt', 'since', 'interval')
  if state[1] then
    local known, since, from = tonumber(state[1]), tonumber(state[2]), tonumber(state[3])
    -- If the clock was set back, no time has passed: tokens are added from now on, and none is added twice.
    local left = math.max(0, known - math.max(0, now - since))
    debt = convert(left, from, interval, capacity)
    must_store = since > now or from ~= interval or debt < left
  end

  local wait = math.max(0, debt + cost * interval - capacity)
  if wait == 0 and spend then
    debt, must_store = debt + cost * interval, true
  end
  if must_store then
    redis.call('HSET', key, 'debt', debt, 'since', now, 'interval', interval)
    redis.call('PEXPIRE', key, math.ceil(capacity / 1000) + 1) -- only frees memory: the key no longer counts by then
  end
  return {wait == 0 and 1 or 0, math.floor((capacity - debt) / interval), wait, debt}
end
