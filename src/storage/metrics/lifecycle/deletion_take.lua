-- Takes a lease like `lease_take.lua`, but also while the memory is full, because its holder frees memory.
--
-- @include ../../../resilience/cache/lease
-- KEYS, ARGV, Reply  those of lease_take.lua
redis.call('UNLINK', KEYS[1] .. ':none') -- after a first write, Redis lets a script use memory even if it is full

if take_lease(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) then
  return 0
end
return math.max(1, redis.call('PTTL', KEYS[1]))
