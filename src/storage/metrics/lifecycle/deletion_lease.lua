-- The lease of a deletion: of all workers, one at a time deletes points of a type.

-- Return whether `token` holds the lease, and renew the lease for `ms` then. That is a write, after which Redis lets a
-- script use memory even if the memory is full.
local function holds_lease(key, token, ms)
  if redis.call('GET', key) ~= token then
    return false
  end
  redis.call('PEXPIRE', key, ms)
  return true
end
