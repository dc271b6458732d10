-- Stores the block of series of all hours, merged again after a deletion, unless it has changed since it was read.
--
-- @include deletion_lease
-- KEYS  m:{<type>}:x, the lease; m:{<type>}:q:all
-- ARGV  token of the lease, its length in ms, what was read, which is a version without a block, the new block with its
--       version
-- Reply 1 done, 0 it has changed, -1 the lease is lost
if not holds_lease(KEYS[1], ARGV[1], ARGV[2]) then
  return -1
end
if redis.call('GET', KEYS[2]) ~= ARGV[3] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[4])
return 1
