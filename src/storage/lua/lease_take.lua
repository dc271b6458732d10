-- Takes a lease, or says for how long another has it.
--
-- KEYS[1] lease
-- ARGV[1] token  ARGV[2] for how long, ms  ARGV[3] the longest that any lease of this key is given for, ms
--
-- Reply: 0 taken; else the ms, at least 1, until the other's lease runs out.
--
-- @include ../../resilience/cache/lease

if take_lease(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) then
  return 0
end
return math.max(1, redis.call('PTTL', KEYS[1]))
