-- Decides whether to admit a call.
--
-- KEYS, ARGV  those of breaker.lua
-- Reply       {1, generation, probe or nil, transition or nil} if the call is admitted; otherwise {0, reason, µs to
--             wait}. The wait is nil while the breaker is forced open.
--
-- @include breaker
local function lend_permit(transition)
  local probe = generation .. '-' .. redis.call('HINCRBY', CIRCUIT, 'probes', 1)
  redis.call('ZADD', LEASES, whole(now + lease_us), probe)
  return {1, generation, probe, transition}
end

local function admit_without_permit()
  prove_writable()
  return {1, generation, false, false}
end

-- If the clock was set back, the open time and every lease begin again.
local function correct_for_clock_set_back()
  if state == 'OPEN' and now < get('opened_us') then
    set('opened_us', now)
    set('until_us', now + get('open_for_us'))
  elseif state == 'HALF_OPEN' then
    for _, probe in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '(' .. whole(now + lease_us), '+inf')) do
      redis.call('ZADD', LEASES, whole(now + lease_us), probe)
    end
  end
end

local admit = {
  CLOSED = admit_without_permit,
  FORCED_CLOSED = admit_without_permit,
  FORCED_OPEN = function()
    return {0, 'the circuit is forced open', false}
  end,
  OPEN = function()
    local wait = wait_for_half_open()
    if wait > 0 then
      return {0, 'the circuit is open', wait}
    end
    return lend_permit(enter('HALF_OPEN', 'the open time is over'))
  end,
  HALF_OPEN = function()
    local wait = wait_for_permit()
    if wait > 0 then
      return {0, 'the circuit is half-open and its probes are out', wait}
    end
    redis.call('ZREMRANGEBYSCORE', LEASES, '-inf', whole(now))
    return lend_permit(false)
  end,
}

if not generation then
  begin('CLOSED')
end
correct_for_clock_set_back()
return admit[state]()
