-- Reads the data about one hour that a deletion needs.
--
-- @include deletion_lease
-- KEYS  m:{<type>}:x, the lease; the script builds the other keys of the type, with the same hash tag
-- ARGV  token of the lease, its length in ms, prefix of the keys, number of the hour
-- Reply {1 if the type has labels, else 0, length of the head in bytes, records of the minutes or '', number of points
--       that no block of series has yet, the block of series or ''}; {} if the lease is lost
local prefix, hour = ARGV[3], ARGV[4]
if not holds_lease(KEYS[1], ARGV[1], ARGV[2]) then
  return {}
end
return {
  redis.call('HEXISTS', prefix .. 'd', 'labelled'),
  redis.call('STRLEN', prefix .. 'r:' .. hour),
  redis.call('GET', prefix .. 'n:' .. hour) or '',
  tonumber(redis.call('HGET', prefix .. 'u', hour) or 0),
  redis.call('GET', prefix .. 'q:' .. hour) or '',
}
