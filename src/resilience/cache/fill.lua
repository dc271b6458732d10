-- Stores an answer and ends the lease of its computation, if the caller still holds the lease.
--
-- KEYS, ARGV  first those of held_lease.lua
-- KEYS[2] entry  KEYS[3] cost  KEYS[4] last good copy
-- ARGV[2] body  ARGV[3] length of the lease, ms  ARGV[4] ttl of the entry, ms  ARGV[5] ttl of the cost, ms
-- ARGV[6] ttl of the last good copy, ms; 0: no copy is stored
--
-- Reply: 1 if the answer was stored; 0 if the lease was lost.
--
-- @include held_lease

if not is_held then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[4])
-- The lease is read after the entry is stored, so that age plus cost is never less than the time since the computation
-- began.
redis.call('SET', KEYS[3], held_ms(ARGV[3]), 'PX', ARGV[5])
redis.call('DEL', LEASE)
if tonumber(ARGV[6]) > 0 then
  redis.call('SET', KEYS[4], ARGV[2], 'PX', ARGV[6])
end
return 1
