-- What the cache's scripts share: who holds a lease, and since when.
--
-- KEYS[1] lease: the token of its holder and, in a second line once it was renewed, the ms for which it was held
--         until then
-- ARGV[1] token
local LEASE, TOKEN = KEYS[1], ARGV[1]

local value = redis.call('GET', LEASE)
local holder, held_before = string.match(value or '', '^(.*)\n(%d+)$')
local is_held = value == TOKEN or holder == TOKEN

-- Returns the ms since the caller took the lease, which it holds and which lasts for `lease` ms unless it is renewed.
-- After the clock was set back, the lease seems to begin in the future.
local function held_ms(lease)
  return (held_before or 0) + math.max(0, lease - redis.call('PTTL', LEASE))
end
