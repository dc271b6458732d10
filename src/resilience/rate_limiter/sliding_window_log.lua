-- Sliding window log: never more than `limit` units in any window, exactly. A unit allowed at t leaves the window at
-- t + window.
--
-- The time of a run does not grow with the cost of the hit. It grows with the logarithm of the hits in the window.
--
-- key      list: two numbers for each allowed hit, oldest first: its time in µs, and the total of units allowed up to
--          and including it. The first hit has already left the window; its total is the base of the other totals.
--
-- @include ../redis/now
local TIME, TOTAL = 0, 1

-- Add the first entry of a key: a hit of no units that has left the window.
local function begin(key)
  redis.call('RPUSH', key, 0, 0)
end

local function append(key, total, window)
  redis.call('RPUSH', key, now, total)
  redis.call('PEXPIRE', key, math.ceil(window / 1000) + 1) -- only frees memory: the key no longer counts by then
end

-- Return the number of hits, from the oldest on, whose TIME or TOTAL is below `least`. The search begins with the
-- oldest hits, since the result is small in most cases.
local function count_below(key, field, least)
  local function is_below(hit)
    local number = redis.call('LINDEX', key, 2 * hit + field)
    return number and tonumber(number) < least
  end
  local low, high, step = 0, 0, 1
  while is_below(high) do
    low, high, step = high + 1, high + step, 2 * step
  end
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_below(middle) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

-- Decide a hit: {allowed 1 or 0, remaining, µs until there is room for cost, µs until the whole limit is free}.
local function hit(key, cost, spend, limit, window)
  local front = redis.call('LRANGE', key, 0, 2) -- the first hit, and the time of the second
  local used, total, newest = 0, front[2] or 0, now
  if front[3] then
    local last = redis.call('LRANGE', key, -2, -1)
    newest, total = tonumber(last[1]), tonumber(last[2])
    if now - front[3] >= window then
      local left = count_below(key, TIME, now - window + 1)
      redis.call('LTRIM', key, 2 * (left - 1), -1)
      front = redis.call('LRANGE', key, 0, 1)
    end
    used = total - front[2]
    if newest > now then -- the clock was set back: all units count from now on
      redis.call('DEL', key)
      begin(key)
      append(key, used, window)
      newest, total = now, used
    end
  end

  local wait = 0
  if used + cost > limit then -- wait until the units that must leave, `used + cost - limit`, have left the window
    local staying = count_below(key, TOTAL, total + cost - limit)
    wait = redis.call('LINDEX', key, 2 * staying + TIME) + window - now
  elseif spend then
    if not front[1] then
      begin(key)
    end
    used, total, newest = used + cost, total + cost, now
    append(key, total, window)
  end

  return {wait == 0 and 1 or 0, math.max(0, limit - used), wait, used > 0 and newest + window - now or 0}
end
