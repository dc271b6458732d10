-- Adds the counts of a worker to the hash of the current second, and records that the worker is alive.
--
-- KEYS   counters:{fleet}:workers: a sorted set of workers, scored by the time of their last report in µs
-- ARGV   the prefix of the hashes' keys, the id of the worker, the seconds without a report after which a worker is
--        removed, the seconds after which a hash expires, then field, amount, field, amount, …
-- Reply  1
--
-- The script builds the key of the hash, counters:{fleet}:<second>. It has the same hash tag as KEYS[1].
--
-- @include ../../resilience/redis/now

local prefix, worker, live, kept = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

redis.call('ZADD', KEYS[1], string.format('%.0f', now), worker)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - live * 1000000))
-- A report in the future was made before the clock was set back. A worker that is alive reports again.
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
redis.call('EXPIRE', KEYS[1], kept)

if #ARGV > 4 then
  local second = prefix .. string.format('%.0f', math.floor(now / 1000000))
  for at = 5, #ARGV, 2 do
    redis.call('HINCRBY', second, ARGV[at], ARGV[at + 1])
  end
  redis.call('EXPIRE', second, kept)
end
return 1
