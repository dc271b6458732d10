-- Takes back an unused slot, if it is the last one that was assigned. The next slot is then due as before it.
--
-- KEYS     those of queue.lua
-- ARGV[1]  the number of the slot
-- Reply    1 if the slot was taken back; 0 if another slot was assigned since
--
-- @include queue
if get('slot') ~= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', PACE, 'next_us', redis.call('HGET', PACE, 'next_before_us'))
return 1
