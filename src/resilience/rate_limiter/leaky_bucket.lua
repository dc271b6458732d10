-- Leaky bucket as a meter (GCRA): a unit adds an interval to the level of the bucket, which falls by 1 per µs. A hit
-- that would exceed the capacity is refused.
--
-- key      hash: the theoretical arrival time in µs, at which the bucket is drained; interval in µs
--
-- @include ../redis/now
-- @include bucket

-- Decide a hit: {allowed 1 or 0, remaining, µs until there is room for cost, µs until the whole limit is free}.
local function hit(key, cost, spend, limit, window)
  local interval = math.ceil(window / limit)
  local capacity = limit * interval
  local debt, must_store = 0, false
  local state = redis.call('HMGET', key, 'drained', 'interval')
  if state[1] then
    local drained, from = tonumber(state[1]), tonumber(state[2])
    local left = math.max(0, drained - now)
    debt = convert(left, from, interval, capacity) -- if the clock was set back, the bucket is full at most
    must_store = from ~= interval or debt < left
  end

  local wait = math.max(0, debt + cost * interval - capacity)
  if wait == 0 and spend then
    debt, must_store = debt + cost * interval, true
  end
  if must_store then
    redis.call('HSET', key, 'drained', now + debt, 'interval', interval)
    redis.call('PEXPIRE', key, math.ceil(capacity / 1000) + 1) -- only frees memory: the key no longer counts by then
  end
  return {wait == 0 and 1 or 0, math.floor((capacity - debt) / interval), wait, debt}
end
