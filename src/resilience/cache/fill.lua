-- Stores an answer, if the lease it was computed under still holds, and ends the lease.
--
-- KEYS, ARGV  those of held_lease.lua
-- KEYS[2] entry  KEYS[3] cost  KEYS[4] last good copy
-- ARGV[2] body  ARGV[3] lease, ms  ARGV[4] ttl, ms  ARGV[5] how long the cost is kept, ms
-- ARGV[6] how long the copy is kept, ms; 0 for none
--
-- Reply: 1 stored; 0 the lease was lost, nothing is stored.
--
-- @include held_lease

if not is_held then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[4])
-- Read after the entry was stored: age and cost together never fall short of when the computation began.
redis.call('SET', KEYS[3], held_ms(ARGV[3]), 'PX', ARGV[5])
redis.call('DEL', LEASE)
if tonumber(ARGV[6]) > 0 then
  redis.call('SET', KEYS[4], ARGV[2], 'PX', ARGV[6])
end
return 1
