-- Store a batch of points: all, or none where it came before.
--
-- KEYS  types                        registry: a sorted set of type names by latest timestamp
--       idem:<digest of the key>     "<kept until, µs> <fingerprint>"; only where the write has a key
-- ARGV  fingerprint ('' without an idempotency key), its life in seconds; then those of points.lua
-- Reply 1 stored now, 0 stored before, -1 the idempotency key came before with another fingerprint; a text, the
--       reason, where it is not known what is stored
local fingerprint, life = ARGV[1], tonumber(ARGV[2])

local kept_until = now + life * 1000000

if KEYS[2] then
  local known = redis.call('GET', KEYS[2])
  if known then
    local until_us, first = known:match('^(%d+) (.*)$')
    until_us = assert(tonumber(until_us), 'a foreign value stands in place of a record')
    if until_us > kept_until then -- the clock was set back: the record is kept for as long again, and no longer
      redis.call('SET', KEYS[2], string.format('%.0f %s', kept_until, first), 'EX', life)
    end
    if until_us > now then
      return first == fingerprint and 0 or -1
    end
  end
  -- Changes nothing, but fails where the record could not be written.
  redis.call('SET', KEYS[2], known or '', 'XX', 'KEEPTTL')
end

plan_points(KEYS[1], 3)
return store_points(KEYS[2], string.format('%.0f %s', kept_until, fingerprint), life) or 1
