-- Reads a lease: whether the caller holds it, and for how long it has been held.
--
-- KEYS[1] lease: the token of the holder. After a renewal, a second line holds the ms from the taking of the lease to
--         its last renewal.
-- ARGV[1] token of the caller
local LEASE, TOKEN = KEYS[1], ARGV[1]

local value = redis.call('GET', LEASE)
local holder, held_before = string.match(value or '', '^(.*)\n(%d+)$')
local is_held = value == TOKEN or holder == TOKEN

-- Returns the ms since the caller took the lease. `lease` is the length of a lease in ms. After the clock was set back,
-- the remaining time may exceed the length: the difference then counts as 0.
local function held_ms(lease)
  return (held_before or 0) + math.max(0, lease - redis.call('PTTL', LEASE))
end
