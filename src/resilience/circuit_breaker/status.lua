-- Returns the status of the breaker. Changes nothing.
--
-- KEYS, ARGV  those of breaker.lua
-- Reply       {visible state, failures in a row, calls in the window, failures in the window, µs of the last opening
--             (0: closed), µs to wait (0: none), transitions}
--
-- @include breaker
local function state_without_wait()
  return READING[state], 0
end

local visible_state_and_wait = {
  CLOSED = function()
    prove_writable()
    return state_without_wait()
  end,
  FORCED_CLOSED = state_without_wait,
  FORCED_OPEN = state_without_wait,
  OPEN = function()
    local wait = wait_for_half_open()
    return wait > 0 and 'OPEN' or 'HALF_OPEN', math.max(0, wait)
  end,
  HALF_OPEN = function()
    return 'HALF_OPEN', wait_for_permit()
  end,
}

local visible_state, wait = visible_state_and_wait[state]()
local calls, failures = health()
local transitions = redis.call('LRANGE', TRANSITIONS, 0, -1)
return {visible_state, get('failures_in_a_row'), calls, failures, get('opened_us'), wait, transitions}
