-- Ends a lease that came to nothing, unless it has another holder by now.
--
-- KEYS[1] lease
-- ARGV[1] token
--
-- Reply: 1 ended; 0 it was not the caller's.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
