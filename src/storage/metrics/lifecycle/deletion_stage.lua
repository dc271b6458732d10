-- Puts points that a deletion keeps aside, until it replaces a string of points by them.
--
-- @include deletion_lease
-- KEYS  m:{<type>}:x, the lease; the key where the points are put
-- ARGV  token of the lease, its length in ms, where in the string the points begin, the points, seconds to keep them
-- Reply 1 done, 0 the lease is lost
if not holds_lease(KEYS[1], ARGV[1], ARGV[2]) then
  return 0
end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[2], ARGV[4])
else
  redis.call('SETRANGE', KEYS[2], ARGV[3], ARGV[4])
end
redis.call('EXPIRE', KEYS[2], ARGV[5])
return 1
