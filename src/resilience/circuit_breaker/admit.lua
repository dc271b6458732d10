-- Decides whether a call may be made now.
--
-- KEYS, ARGV  those of breaker.lua
-- reply       {1, generation, probe or nil, transition or nil} when it may; else {0, reason, µs to wait: nil
--             where only an order lets a call through}
--
-- @include breaker
local function lend_permit(transition)
  local probe = generation .. '-' .. redis.call('HINCRBY', CIRCUIT, 'probes', 1)
  redis.call('ZADD', LEASES, whole(now + lease_us), probe)
  return {1, generation, probe, transition}
end

local function let_through()
  prove_writable()
  return {1, generation, false, false}
end

-- After the clock was set back, the open time begins again, and so does every lease.
local function notice_a_clock_set_back()
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
  CLOSED = let_through,
  FORCED_CLOSED = let_through,
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
notice_a_clock_set_back()
return admit[state]()
