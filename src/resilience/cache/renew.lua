-- Lets a lease last for its whole time from now, unless it has another holder by now.
--
-- KEYS, ARGV  those of held_lease.lua
-- ARGV[2]     lease, ms
--
-- Reply: 1 renewed; 0 the lease was lost.
--
-- @include held_lease

if not is_held then
  return 0
end
redis.call('SET', LEASE, TOKEN .. '\n' .. held_ms(ARGV[2]), 'PX', ARGV[2])
return 1
