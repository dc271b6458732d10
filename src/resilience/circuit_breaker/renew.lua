-- Renews the lease of a probe's permit.
--
-- KEYS, ARGV  those of breaker.lua
-- ARGV[15]    the probe
-- Reply       1 if the lease was renewed; 0 if the probe has lost its permit
--
-- @include breaker
if not redis.call('ZSCORE', LEASES, ARGV[15]) then
  return 0
end
redis.call('ZADD', LEASES, whole(now + lease_us), ARGV[15])
return 1
