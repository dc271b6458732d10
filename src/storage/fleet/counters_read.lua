-- Sums the counts of all workers over the last complete seconds, and counts the workers. Changes nothing.
--
-- KEYS   counters:{fleet}:workers: a sorted set of workers, scored by the time of their last report in µs
-- ARGV   the prefix of the hashes' keys, the number of seconds, the seconds without a report after which a worker does
--        not count
-- Reply  {number of workers, {field, sum, field, sum, …}}
--
-- The script builds the keys of the hashes, counters:{fleet}:<second>. They have the same hash tag as KEYS[1].
--
-- @include ../../resilience/redis/now

local prefix, seconds, live = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local this_second = math.floor(now / 1000000)

local sums = {}
for second = this_second - seconds, this_second - 1 do
  local counts = redis.call('HGETALL', prefix .. string.format('%.0f', second))
  for at = 1, #counts, 2 do
    sums[counts[at]] = (sums[counts[at]] or 0) + tonumber(counts[at + 1])
  end
end

local reply = {}
for field, sum in pairs(sums) do
  reply[#reply + 1] = field
  reply[#reply + 1] = sum
end
local since, until_now = string.format('(%.0f', now - live * 1000000), string.format('%.0f', now)
return {redis.call('ZCOUNT', KEYS[1], since, until_now), reply}
