-- Add what a worker has counted to the second that it is now, and note that the worker lives.
--
-- KEYS  counters:{fleet}:workers   a sorted set of workers, by when they were last heard of, in µs
--       counters:{fleet}:<second>  is made here, a hash of counts; it carries the same tag
--
-- ARGV  prefix of the seconds' keys, name of the worker, seconds after which it is forgotten,
--       seconds that a hash is kept, then field, amount, field, amount, …
--
-- Reply 1
--
-- @include ../../resilience/redis/now

local prefix, worker, live, kept = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

redis.call('ZADD', KEYS[1], string.format('%.0f', now), worker)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - live * 1000000))
-- Last heard of in the future: before the clock was set back. A worker that lives is heard of again.
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
