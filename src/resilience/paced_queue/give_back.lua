-- Takes back a turn that was not used, if it is the last one given: the next is due as if it had not been.
--
-- KEYS     those of queue.lua
-- ARGV[1]  number of the turn
-- reply    1 taken back; 0 another was given since
--
-- @include queue
if get('turn') ~= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', PACE, 'next_us', redis.call('HGET', PACE, 'next_before_us'))
return 1
