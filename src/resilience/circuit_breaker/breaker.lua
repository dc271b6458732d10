-- The shared part of the circuit breaker's scripts: the state, its changes, and the window of the most recent calls.
-- src/resilience/circuit_breaker/store.py describes the rules.
--
-- KEYS[1]  hash: state, generation, opened_us, until_us, open_for_us, openings (in a row), failures_in_a_row,
--          failures and slow (of the count window), probes (the number of all probes so far), probe_successes,
--          probe_failures, would_open (1: WouldOpen was reported while forced closed)
-- KEYS[2]  sorted set: the running probes, scored by the time in µs at which their leases expire
-- KEYS[3]  list: the last 20 changes of state as 'µs before after reason', oldest first
-- KEYS[4]  list: the count window: one number for each call, 0 or 1 (failed) plus 2 (slow), oldest first
-- KEYS[5]  hash: the time window: bucket number → 'calls failures slow'
-- ARGV     1 failure threshold, 2 failure rate and 3 slow call rate (0: the rule is off), 4 calls in the window,
--          5 µs in the window (0: the window counts calls), 6 minimum calls, 7 µs open, 8 factor of the µs open,
--          9 maximum of the µs open (0: none), 10 permits, 11 successes to close, 12 µs of a lease, 13 failures in the
--          window (0: the rule is off), 14 the µs open of each opening in a row, separated by spaces (empty: 7 to 9
--          apply). The arguments of each script begin at 15.
--
-- @include ../redis/now
local CIRCUIT, LEASES, TRANSITIONS, CALLS, TIME_BUCKETS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local TRANSITIONS_KEPT = 20
local BUCKETS = 10
local READING = {
  CLOSED = 'CLOSED', FORCED_CLOSED = 'CLOSED', OPEN = 'OPEN', FORCED_OPEN = 'OPEN', HALF_OPEN = 'HALF_OPEN',
}

local option = {}
for i = 1, 13 do
  option[i] = tonumber(ARGV[i])
end
local failure_threshold, failure_rate, slow_rate = option[1], option[2], option[3]
local window_calls, window_us, minimum_calls = option[4], option[5], option[6]
local open_us, open_factor, open_max_us = option[7], option[8], option[9]
local permits, successes_to_close, lease_us = option[10], option[11], option[12]
local failures_in_window, open_lengths = option[13], ARGV[14]

-- Returns a whole number as text. tostring keeps only 14 digits, which is too few for µs.
local function whole(number)
  return string.format('%.0f', number)
end

local function get(field)
  return tonumber(redis.call('HGET', CIRCUIT, field) or 0)
end

local function set(field, number)
  redis.call('HSET', CIRCUIT, field, whole(number))
end

local found = redis.call('HMGET', CIRCUIT, 'state', 'generation')
local state, generation = found[1] or 'CLOSED', found[2]

-- Returns for how many µs the breaker stays open at the `opening`-th opening in a row.
local function open_for_opening(opening)
  if open_lengths ~= '' then
    local length, number = 0, 0
    for text in string.gmatch(open_lengths, '%d+') do
      number = number + 1
      if number <= opening then
        length = tonumber(text)
      end
    end
    return length
  end
  local length = open_us * open_factor ^ (opening - 1)
  if open_max_us > 0 then
    length = math.min(length, open_max_us)
  end
  return math.floor(length)
end

-- The action of each state when it begins. A closed state begins with empty counts.
local on_begin = {
  CLOSED = function()
    redis.call('DEL', CALLS, TIME_BUCKETS)
    redis.call('HDEL', CIRCUIT, 'failures_in_a_row', 'failures', 'slow', 'opened_us', 'open_for_us', 'openings',
      'would_open')
  end,
  FORCED_OPEN = function()
    set('opened_us', now)
  end,
  OPEN = function(forced_us)
    local open_for = forced_us or open_for_opening(redis.call('HINCRBY', CIRCUIT, 'openings', 1))
    set('opened_us', now)
    set('open_for_us', open_for)
    set('until_us', now + open_for)
  end,
  HALF_OPEN = function()
    redis.call('HDEL', CIRCUIT, 'probe_successes', 'probe_failures')
  end,
}
on_begin.FORCED_CLOSED = on_begin.CLOSED

-- Begins a generation in the state `after`. Its number is the time in µs, or one more than the last number if that is
-- greater. A Redis that has lost its data therefore does not reuse an earlier number, and ignores earlier outcomes.
-- `forced_us` is the open time if it was set by hand, otherwise nil.
local function begin(after, forced_us)
  generation = whole(math.max(now, tonumber(generation or 0) + 1))
  state = after
  redis.call('DEL', LEASES)
  on_begin[after](forced_us)
  redis.call('HSET', CIRCUIT, 'state', after, 'generation', generation)
end

-- Raises an error if Redis refuses writes. A closed breaker would otherwise admit calls whose outcomes cannot be
-- counted. The error makes the caller use its local breaker.
local function prove_writable()
  redis.call('HSET', CIRCUIT, 'state', state)
end

-- Changes the state to `after`, and returns the transition in its stored form. `forced_us` is as for `begin`.
local function enter(after, reason, forced_us)
  local transition = table.concat({whole(now), READING[state], READING[after], reason}, ' ')
  redis.call('RPUSH', TRANSITIONS, transition)
  redis.call('LTRIM', TRANSITIONS, -TRANSITIONS_KEPT, -1)
  begin(after, forced_us)
  return transition
end

local function current_bucket()
  return math.floor(now / (window_us / BUCKETS))
end

-- A bucket in the future was written before the clock was set back.
local function is_in_window(bucket)
  return tonumber(bucket) > current_bucket() - BUCKETS and tonumber(bucket) <= current_bucket()
end

local function unpack_bucket(text)
  local calls, failures, slow = string.match(text or '0 0 0', '(%d+) (%d+) (%d+)')
  return tonumber(calls), tonumber(failures), tonumber(slow)
end

-- Returns the number of calls in the window, the number of failures, and the number of slow calls.
local function health()
  if window_us == 0 then
    return redis.call('LLEN', CALLS), get('failures'), get('slow')
  end
  local calls, failures, slow = 0, 0, 0
  local buckets = redis.call('HGETALL', TIME_BUCKETS)
  for i = 1, #buckets, 2 do
    if is_in_window(buckets[i]) then
      local c, f, s = unpack_bucket(buckets[i + 1])
      calls, failures, slow = calls + c, failures + f, slow + s
    end
  end
  return calls, failures, slow
end

-- Returns the µs until the open time is over, or 0 or less if it is over. The result never exceeds the open time, even
-- after the clock was set back.
local function wait_for_half_open()
  return math.min(get('until_us') - now, get('open_for_us'))
end

-- Returns the µs until a half-open breaker has a free permit, or 0 if it has one. The result never exceeds a lease, even
-- after the clock was set back. Without a probe under way, no outcome can end the state: then a permit is free even if
-- all have been used, which happens after the number of permits was lowered.
local function wait_for_permit()
  local under_way = redis.call('ZCOUNT', LEASES, '(' .. whole(now), '+inf')
  if get('probe_successes') + get('probe_failures') + under_way < permits then
    return 0
  end
  local next_expiry = redis.call('ZRANGEBYSCORE', LEASES, '(' .. whole(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return next_expiry[2] and math.min(tonumber(next_expiry[2]) - now, lease_us) or 0
end
