-- Fixed window: counts hits in windows. Each window begins with the first hit after the previous window has ended.
--
-- key      hash: start of the window in µs, count
--
-- @include ../redis/now

-- Decide a hit: {allowed 1 or 0, remaining, µs until there is room for cost, µs until the whole limit is free}.
local function hit(key, cost, spend, limit, window)
  local state = redis.call('HMGET', key, 'start', 'count')
  local start, count = tonumber(state[1] or now), tonumber(state[2] or 0)
  local was_set_back = start > now -- the clock was set back, so the window begins now
  if was_set_back then
    start = now
  elseif now - start >= window then
    start, count = now, 0
  end

  local wait = 0
  if count + cost > limit then
    wait = start + window - now
  elseif spend then
    count = count + cost
  end
  if was_set_back or wait == 0 and spend then
    redis.call('HSET', key, 'start', start, 'count', count)
    redis.call('PEXPIRE', key, math.ceil(window / 1000) + 1) -- only frees memory: the key no longer counts by then
  end

  local reset = count > 0 and start + window - now or 0
  return {wait == 0 and 1 or 0, math.max(0, limit - count), wait, reset}
end
