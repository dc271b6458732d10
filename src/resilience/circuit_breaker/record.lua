-- Counts the outcome of a call, unless its generation is over or its permit was given to another.
--
-- KEYS, ARGV  those of breaker.lua
-- ARGV[15]    generation of the call
-- ARGV[16]    its probe, '' where it is none
-- ARGV[17]    1 if it failed, else 0
-- ARGV[18]    1 if it was slow, else 0
-- reply       the transition this outcome made, nil where it made none; {reason} where the breaker is forced
--             closed and would have opened
--
-- @include breaker
local failed, slow = tonumber(ARGV[17]), tonumber(ARGV[18])
local MOST_DROPPED = 100 -- calls that leave the count window in one run

local function count_in_calls()
  redis.call('RPUSH', CALLS, failed + 2 * slow)
  redis.call('HINCRBY', CIRCUIT, 'failures', failed)
  redis.call('HINCRBY', CIRCUIT, 'slow', slow)
  -- After the window was made shorter there are many to drop: some at each call.
  for _ = 1, math.min(redis.call('LLEN', CALLS) - window_calls, MOST_DROPPED) do
    local oldest = tonumber(redis.call('LPOP', CALLS))
    -- 0 - x, as -x of 0 is '-0', which is no integer to Redis.
    redis.call('HINCRBY', CIRCUIT, 'failures', 0 - oldest % 2)
    redis.call('HINCRBY', CIRCUIT, 'slow', 0 - math.floor(oldest / 2))
  end
end

local function count_in_time()
  local running = running_bucket()
  for _, bucket in ipairs(redis.call('HKEYS', TIME_BUCKETS)) do
    if not is_in_window(bucket) then
      redis.call('HDEL', TIME_BUCKETS, bucket)
    end
  end
  local c, f, s = unpack_bucket(redis.call('HGET', TIME_BUCKETS, whole(running)))
  local counts = table.concat({c + 1, f + failed, s + slow}, ' ')
  redis.call('HSET', TIME_BUCKETS, whole(running), counts)
end

local function count()
  if window_us == 0 then
    count_in_calls()
  else
    count_in_time()
  end
  set('failures_in_a_row', failed * (get('failures_in_a_row') + 1))
end

local function why_open()
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

-- No call is ever admitted in the open states.
local record = {
  FORCED_CLOSED = function()
    count()
    local reason, was_reported = why_open(), get('would_open') == 1
    if (reason ~= nil) ~= was_reported then
      set('would_open', reason and 1 or 0)
    end
    return reason and not was_reported and {reason} or nil
  end,
  CLOSED = function()
    count()
    local reason = why_open()
    return reason and enter('OPEN', reason)
  end,
  HALF_OPEN = function()
    if redis.call('ZREM', LEASES, ARGV[16]) == 0 then
      return nil
    end
    count()
    local went_well = failed + slow == 0
    local tally = redis.call('HINCRBY', CIRCUIT, went_well and 'probe_successes' or 'probe_failures', 1)
    if went_well and tally >= successes_to_close then
      return enter('CLOSED', 'probes succeeded: ' .. tally)
    elseif not went_well and tally > permits - successes_to_close then
      return enter('OPEN', 'probes failed: ' .. tally)
    end
  end,
}

if ARGV[15] == generation then
  return record[state]()
end
