-- Stores a batch of points: all, or none if it was stored before.
--
-- KEYS  types                        registry: a sorted set of type names by latest timestamp
--       idem:<digest of the key>     "<kept until, µs> <fingerprint> <answer>"; only if the write has a key
-- ARGV  fingerprint ('' without an idempotency key), its life in seconds, the answer to repeat; then the
--       arguments of metrics_write.lua
-- Reply {0, answer} stored before; {-1} the key came before with another fingerprint; else that of plan_metrics or of
--       store_metrics
--
-- @include metrics_write
local fingerprint, life, answer = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local kept_until = now + life * 1000000

if KEYS[2] then
  local known = redis.call('GET', KEYS[2])
  if known then
    local until_us, first, first_answer = known:match('^(%d+) (%S*) (.*)$')
    until_us = assert(tonumber(until_us), 'a foreign value stands in place of a record')
    if until_us > kept_until then -- the clock was set back: the record is kept for as long again, and no longer
      redis.call('SET', KEYS[2], string.format('%.0f %s %s', kept_until, first, first_answer), 'EX', life)
    end
    if until_us > now then
      return first == fingerprint and {0, first_answer} or {-1}
    end
  end
  -- Changes nothing, but fails if the record could not be written.
  redis.call('SET', KEYS[2], known or '', 'XX', 'KEEPTTL')
end

local types, reply = plan_metrics(KEYS[1], 4)
if not types then
  return reply
end
local record = string.format('%.0f %s %s', kept_until, fingerprint, answer)
return store_metrics(KEYS[1], types, KEYS[2], record, life)
