-- Reads an answer, its cost and its remaining time. Changes nothing.
--
-- KEYS[1] entry or last good copy  KEYS[2] cost
--
-- Reply: {body or nil, cost in ms or nil, remaining ms}. The body is nil if the key holds a value of another type.
local values = redis.call('MGET', KEYS[1], KEYS[2])
return {values[1], values[2], redis.call('PTTL', KEYS[1])}
