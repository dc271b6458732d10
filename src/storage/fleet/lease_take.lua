-- Takes a lease, or returns the remaining time of the lease of another holder.
--
-- KEYS[1] lease
-- ARGV[1] token  ARGV[2] length of the lease, ms  ARGV[3] longest length of any lease under this key, ms
--
-- Reply: 0 if the lease was taken; otherwise the ms, at least 1, until the other lease expires.
--
-- @include ../../resilience/cache/lease

if take_lease(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) then
  return 0
end
return math.max(1, redis.call('PTTL', KEYS[1]))
