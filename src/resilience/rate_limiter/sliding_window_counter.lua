-- Sliding window counter: the count of the previous window, weighted by the share of it that still counts, plus the
-- count of the current window. The arithmetic is exact while limit * window in µs is below 2^53, such as 100,000 a day.
--
-- key      hash: start of the current window in µs, previous and current count
--
-- @include ../redis/now

-- Decide a hit: {allowed 1 or 0, remaining, µs until there is room for cost, µs until the whole limit is free}.
local function hit(key, cost, spend, limit, window)
  local state = redis.call('HMGET', key, 'start', 'previous', 'current')
  local start, previous, current = tonumber(state[1] or now), tonumber(state[2] or 0), tonumber(state[3] or 0)
  local was_set_back = start > now -- the clock was set back, so the current window begins now
  if was_set_back then
    start = now
  elseif now - start >= 2 * window then
    start, previous, current = now, 0, 0
  elseif now - start >= window then
    start, previous, current = start + window, current, 0
  end

  local age = now - start
  local remaining = limit - current - math.ceil(previous * (window - age) / window)
  local wait = 0
  if cost > remaining then
    if current + cost <= limit then -- there is room once less of the previous window counts
      wait = window - math.floor((limit - current - cost) * window / previous) - age
    else -- the current window must become the previous one first
      wait = 2 * window - math.floor((limit - cost) * window / current) - age
    end
    wait = math.max(1, wait) -- rounding may give 0, which would mean that the hit is allowed
  elseif spend then
    current, remaining = current + cost, remaining - cost
  end
  if was_set_back or wait == 0 and spend then
    redis.call('HSET', key, 'start', start, 'previous', previous, 'current', current)
    redis.call('PEXPIRE', key, math.ceil(2 * window / 1000) + 1) -- only frees memory: the key no longer counts by then
  end

  local windows_to_go = current > 0 and 2 or previous > 0 and 1 or 0
  local reset = windows_to_go > 0 and windows_to_go * window - age or 0
  return {wait == 0 and 1 or 0, math.max(0, remaining), wait, reset}
end
