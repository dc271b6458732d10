-- Replaces the blocks of series of one hour and of all hours, unless they have changed since they were read, or points
-- were deleted.
--
-- KEYS  m:{<type>}:u, m:{<type>}:q:<hour>, m:{<type>}:q:all, m:{<type>}:d
-- ARGV  number of the hour, generation of the type that was read, version of the hour's block that was read (0: there
--       was none), the new block, version of the block of all hours that was read, the new block, number of points
--       that were added
-- Reply 1 done, 0 another worker was faster
local function version_of(key)
  local head = redis.call('GETRANGE', key, 0, 3)
  return #head == 4 and struct.unpack('<I', head) or 0
end

if (redis.call('HGET', KEYS[4], 'generation') or '') ~= ARGV[2] or version_of(KEYS[2]) ~= tonumber(ARGV[3])
    or version_of(KEYS[3]) ~= tonumber(ARGV[5]) then
  return 0
end
redis.call('SET', KEYS[2], ARGV[4])
redis.call('SET', KEYS[3], ARGV[6])
-- 0 - n: for no points, -n would be -0, which Redis 7 does not accept as an integer.
if redis.call('HINCRBY', KEYS[1], ARGV[1], 0 - tonumber(ARGV[7])) <= 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return 1
