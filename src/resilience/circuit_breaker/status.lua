-- Tells how the breaker stands. Changes nothing.
--
-- KEYS, ARGV  those of breaker.lua
-- reply       {state as it reads, failures in a row, calls and failures in the window, µs of the last opening
--             (0: closed), µs to wait (0: none), transitions}
--
-- @include breaker
local function nothing_to_wait_for()
  return READING[state], 0
end

local outlook = {
  CLOSED = function()
    prove_writable()
    return nothing_to_wait_for()
  end,
  FORCED_CLOSED = nothing_to_wait_for,
  FORCED_OPEN = nothing_to_wait_for,
  OPEN = function()
    local wait = wait_for_half_open()
    return wait > 0 and 'OPEN' or 'HALF_OPEN', math.max(0, wait)
  end,
  HALF_OPEN = function()
    return 'HALF_OPEN', wait_for_permit()
  end,
}

local reading, wait = outlook[state]()
local calls, failures = health()
local transitions = redis.call('LRANGE', TRANSITIONS, 0, -1)
return {reading, get('failures_in_a_row'), calls, failures, get('opened_us'), wait, transitions}
