-- Stages points that a deletion keeps, until the deletion replaces a string of points by them.
--
-- @include deletion_lease
-- KEYS  m:{<type>}:x, the lease; the key of the staged points
-- ARGV  token of the lease, its length in ms, position of the points in the string, the points, seconds until they expire
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
