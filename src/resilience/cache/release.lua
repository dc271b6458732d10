-- Ends a lease that came to nothing, unless it has another holder by now.
--
-- KEYS, ARGV  those of held_lease.lua
--
-- Reply: 1 ended; 0 it was not the caller's.
--
-- @include held_lease

if not is_held then
  return 0
end
return redis.call('DEL', LEASE)
