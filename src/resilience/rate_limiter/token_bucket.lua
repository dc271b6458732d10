-- Token bucket: `limit` tokens at most, refilled evenly at `limit` a window. Credit is kept in µs: it grows by
-- one a µs and a token costs an interval, so every figure is whole and nothing drifts.
--
-- key      hash: credit in µs, and the time in µs at which it was reckoned
--
-- @include ../redis/now
-- @include quota
local interval = math.ceil(window / limit)
local capacity = limit * interval

-- Return {allowed 1 or 0, remaining, µs until there is room for cost, µs until the whole limit is free}.
local function hit(key, cost, spend)
  local state = redis.call('HMGET', key, 'credit', 'at')
  local credit, at = tonumber(state[1] or capacity), tonumber(state[2] or now)
  local was_set_back = at > now -- the clock was: no credit is given twice, and credit grows from now on
  if was_set_back then
    at = now
  end
  credit = math.min(capacity, credit + now - at)

  local wait = math.max(0, cost * interval - credit)
  if wait == 0 and spend then
    credit = credit - cost * interval
  end
  if was_set_back or wait == 0 and spend then
    redis.call('HSET', key, 'credit', credit, 'at', now)
    redis.call('PEXPIRE', key, math.ceil(capacity / 1000) + 1) -- clean-up only, never early
  end
  return {wait == 0 and 1 or 0, math.floor(credit / interval), wait, capacity - credit}
end
