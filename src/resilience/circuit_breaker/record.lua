-- Counts the outcome of a call, unless its generation or its lease has ended.
--
-- KEYS, ARGV  those of breaker.lua
-- ARGV[15]    the generation of the call
-- ARGV[16]    the probe id of the call, '' if the call is not a probe
-- ARGV[17]    1 if the call failed, otherwise 0
-- ARGV[18]    1 if the call was slow, otherwise 0
-- Reply       the transition that this outcome caused, or nil; {reason} if the breaker is forced closed and would have
--             opened
--
-- @include breaker
local failed, slow = tonumber(ARGV[17]), tonumber(ARGV[18])
local MOST_DROPPED = 100 -- the largest number of calls that leave the count window in one run

local function count_in_calls()
  redis.call('RPUSH', CALLS, failed + 2 * slow)
  redis.call('HINCRBY', CIRCUIT, 'failures', failed)
  redis.call('HINCRBY', CIRCUIT, 'slow', slow)
  -- After the window was shortened, many calls must leave it. Each run removes a part of them.
  for _ = 1, math.min(redis.call('LLEN', CALLS) - window_calls, MOST_DROPPED) do
    local oldest = tonumber(redis.call('LPOP', CALLS))
    -- 0 - x is used because -x would be '-0' for 0, which Redis does not accept as an integer.
    redis.call('HINCRBY', CIRCUIT, 'failures', 0 - oldest % 2)
    redis.call('HINCRBY', CIRCUIT, 'slow', 0 - math.floor(oldest / 2))
  end
end

local function count_in_time()
  local current = current_bucket()
  for _, bucket in ipairs(redis.call('HKEYS', TIME_BUCKETS)) do
    if not is_in_window(bucket) then
      redis.call('HDEL', TIME_BUCKETS, bucket)
    end
  end
  local c, f, s = unpack_bucket(redis.call('HGET', TIME_BUCKETS, whole(current)))
  local counts = table.concat({c + 1, f + failed, s + slow}, ' ')
  redis.call('HSET', TIME_BUCKETS, whole(current), counts)
end

local function count()
  if window_us == 0 then
    count_in_calls()
  else
    count_in_time()
  end
  set('failures_in_a_row', failed * (get('failures_in_a_row') + 1))
end

local function reason_to_open()
  local in_a_row = get('failures_in_a_row')
  if failure_threshold > 0 and in_a_row >= failure_threshold then
    return 'failures in a row: ' .. in_a_row
  end
  local calls, failures, slow_calls = health()
  if failures_in_window > 0 and failures >= failures_in_window then
    return 'failures in the window: ' .. failures
  end
  if calls < minimum_calls then
    return nil
  end
  if failure_rate > 0 and failures / calls >= failure_rate then
    return 'failed calls: ' .. failures .. ' of ' .. calls
  end
  if slow_rate > 0 and slow_calls / calls >= slow_rate then
    return 'slow calls: ' .. slow_calls .. ' of ' .. calls
  end
end

-- The open states admit no calls, and so have no outcomes.
local record = {
  FORCED_CLOSED = function()
    count()
    local reason, was_reported = reason_to_open(), get('would_open') == 1
    if (reason ~= nil) ~= was_reported then
      set('would_open', reason and 1 or 0)
    end
    return reason and not was_reported and {reason} or nil
  end,
  CLOSED = function()
    count()
    local reason = reason_to_open()
    return reason and enter('OPEN', reason)
  end,
  HALF_OPEN = function()
    if redis.call('ZREM', LEASES, ARGV[16]) == 0 then
      return nil
    end
    count()
    local succeeded = failed + slow == 0
    local number = redis.call('HINCRBY', CIRCUIT, succeeded and 'probe_successes' or 'probe_failures', 1)
    if succeeded and number >= successes_to_close then
      return enter('CLOSED', 'probes succeeded: ' .. number)
    elseif not succeeded and number > permits - successes_to_close then
      return enter('OPEN', 'probes failed: ' .. number)
    end
  end,
}

if ARGV[15] == generation then
  return record[state]()
end
