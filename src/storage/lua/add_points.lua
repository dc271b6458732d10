-- Store a batch of points: all, or none where it came before.
--
-- KEYS  types                        registry: a sorted set of type names by latest timestamp
--       idem:<digest of the key>     "<kept until, µs> <fingerprint>"; only where the write has a key
-- ARGV  fingerprint ('' without an idempotency key), its life in seconds; then those of points.lua
-- Reply 1 stored now, 0 stored before, -1 the idempotency key came before with another fingerprint
local fingerprint, life = ARGV[1], tonumber(ARGV[2])

if KEYS[2] then
  local known = redis.call('GET', KEYS[2])
  if known then
    local kept_until, first = known:match('^(%d+) (.*)$')
    if tonumber(kept_until) > now then
      return first == fingerprint and 0 or -1
    end
  end
  local record = string.format('%.0f %s', now + life * 1000000, fingerprint)
  redis.call('SET', KEYS[2], record, 'EX', life)
end

add_points(KEYS[1], 3)
return 1
