-- Replaces the beginning of a sketch by its compacted form. Entries that were added in the meantime follow it.
--
-- KEYS  a sketch
-- ARGV  the beginning, its compacted form
-- Reply 1 done, 0 the sketch has another beginning by now
local sketch, length = redis.call('GET', KEYS[1]), #ARGV[1]
if not sketch or sketch:sub(1, length) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2] .. sketch:sub(length + 1), 'KEEPTTL')
return 1
