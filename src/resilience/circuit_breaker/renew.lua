-- Lets a probe keep its permit for another lease.
--
-- KEYS, ARGV  those of breaker.lua
-- ARGV[15]    the probe
-- reply       1 renewed; 0 the permit is not the probe's any more
--
-- @include breaker
if not redis.call('ZSCORE', LEASES, ARGV[15]) then
  return 0
end
redis.call('ZADD', LEASES, whole(now + lease_us), ARGV[15])
return 1
