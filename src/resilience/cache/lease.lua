-- A lease: the right to do something alone for a while, kept under a key whose value begins with the holder's token.

-- Take the lease for `ms` unless another holds it. No lease is given for longer than `longest` ms: one that has more
-- left is from before the clock was set back, and nothing says that its holder lives.
local function take_lease(key, token, ms, longest)
  if redis.call('PTTL', key) > tonumber(longest) then
    redis.call('DEL', key)
  end
  return redis.call('SET', key, token, 'PX', ms, 'NX')
end
