-- Ends a lease without storing an answer, if the caller still holds the lease.
--
-- KEYS, ARGV  those of held_lease.lua
--
-- Reply: 1 if the lease was ended; 0 if the caller did not hold it.
--
-- @include held_lease

if not is_held then
  return 0
end
return redis.call('DEL', LEASE)
