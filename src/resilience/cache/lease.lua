-- A lease allows one holder at a time to do a task. It is a key whose value begins with the holder's token.

-- Takes the lease for `ms` unless another holder has it. No lease is longer than `longest` ms. A lease with more time
-- left was taken before the clock was set back, and is removed: its holder may have died.
local function take_lease(key, token, ms, longest)
  if redis.call('PTTL', key) > tonumber(longest) then
    redis.call('DEL', key)
  end
  return redis.call('SET', key, token, 'PX', ms, 'NX')
end
