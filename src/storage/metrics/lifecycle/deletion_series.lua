-- Changes the series dictionary of a type on behalf of a deletion, unless it has changed since it was read.
--
-- @include deletion_lease
-- KEYS  m:{<type>}:x, the lease; m:{<type>}:s
-- ARGV  token of the lease, its length in ms, version of the dictionary that was read, number of fields to remove, these
--       fields, and fields and values to set by turns
-- Reply 1 done, 0 the dictionary has changed, -1 the lease is lost
if not holds_lease(KEYS[1], ARGV[1], ARGV[2]) then
  return -1
end
if redis.call('HGET', KEYS[2], '#') ~= ARGV[3] then
  return 0
end
local first = 5 + tonumber(ARGV[4])
redis.call('HSET', KEYS[2], '#', string.format('%.0f', tonumber(ARGV[3]) + 1))
for i = 5, first - 1 do
  redis.call('HDEL', KEYS[2], ARGV[i])
end
for i = first, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
return 1
