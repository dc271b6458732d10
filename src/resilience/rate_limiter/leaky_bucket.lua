-- Leaky bucket as a meter (GCRA): a unit pours an interval into a bucket that drains by one a µs, and what
-- would overflow is refused. One number says all: when the bucket will have drained.
--
-- key      string: the theoretical arrival time in µs, at which the bucket is empty
--
-- @include ../redis/now
-- @include quota
local interval = math.ceil(window / limit)
local capacity = limit * interval

-- Return {allowed 1 or 0, remaining, µs until there is room for cost, µs until the whole limit is free}.
local function hit(key, cost, spend)
  local drained = math.max(now, tonumber(redis.call('GET', key) or now))
  local was_set_back = drained > now + capacity -- the clock was: the bucket is as good as full
  if was_set_back then
    drained = now + capacity
  end

  local wait = math.max(0, drained + cost * interval - capacity - now)
  if wait == 0 and spend then
    drained = drained + cost * interval
  end
  if was_set_back or wait == 0 and spend then
    -- The expiry is for clean-up only, and never early.
    redis.call('SET', key, drained, 'PX', math.ceil(capacity / 1000) + 1)
  end
  return {wait == 0 and 1 or 0, math.max(0, math.floor((capacity - drained + now) / interval)), wait, drained - now}
end
