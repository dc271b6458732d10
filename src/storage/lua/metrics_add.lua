-- Stores a batch of points: all, or none if it was stored before.
--
-- KEYS  types                        registry: a sorted set of type names by latest timestamp
--       idem:<digest of the key>     "<kept until, µs> <fingerprint> <answer>"; only if the write has a key
-- ARGV  fingerprint ('' without an idempotency key), its life in seconds, the answer to repeat; then the
--       arguments of metrics_write.lua
-- Reply {0, answer} stored before; {-1} the key came before with another fingerprint; else as write_metrics
local fingerprint, life, answer = ARGV[1], tonumber(ARGV[2]), ARGV[3]

if KEYS[2] then
  local known = redis.call('GET', KEYS[2])
  if known then
    local kept_until, first, first_answer = known:match('^(%d+) (%S*) (.*)$')
    if tonumber(kept_until) > now then
      return first == fingerprint and {0, first_answer} or {-1}
    end
  end
end

local reply = write_metrics(KEYS[1], 4)
if KEYS[2] and reply[1] == 1 then
  redis.call('SET', KEYS[2], string.format('%.0f %s %s', now + life * 1000000, fingerprint, answer), 'EX', life)
end
return reply
