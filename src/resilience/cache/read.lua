-- Reads an answer and what is known of its age. Changes nothing.
--
-- KEYS[1] entry or last good copy  KEYS[2] cost
--
-- Reply: {body or nil, cost in ms or nil, remaining ms}; of a foreign value, no body
local values = redis.call('MGET', KEYS[1], KEYS[2])
return {values[1], values[2], redis.call('PTTL', KEYS[1])}
