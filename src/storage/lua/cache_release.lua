-- Ends a lease that came to nothing, unless it has another holder by now.
--
-- KEYS, ARGV  those of cache.lua
--
-- Reply: 1 ended; 0 it was not the caller's.

if not is_held then
  return 0
end
return redis.call('DEL', LEASE)
