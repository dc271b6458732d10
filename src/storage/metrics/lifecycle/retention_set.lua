-- Sets a retention rule, unless there are too many.
--
-- KEYS  retention: a hash of seconds by pattern
-- ARGV  pattern, seconds, maximum number of rules
-- Reply 1 done, 0 there are as many other rules already
redis.call('HDEL', KEYS[1], '') -- after a first write, Redis lets a script use memory even if it is full

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
