-- Renews a lease for its whole length from now, if the caller still holds it.
--
-- KEYS, ARGV  first those of held_lease.lua
-- ARGV[2]     length of the lease, ms
--
-- Reply: 1 if the lease was renewed; 0 if it was lost.
--
-- @include held_lease

if not is_held then
  return 0
end
redis.call('SET', LEASE, TOKEN .. '\n' .. held_ms(ARGV[2]), 'PX', ARGV[2])
return 1
