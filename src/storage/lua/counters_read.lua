-- Sum up what all workers counted in the last whole seconds, and count the workers. Changes nothing.
--
-- KEYS  pulse:{fleet}:workers   a sorted set of workers, by when they were last heard of, in µs
--       pulse:{fleet}:<second>  are made here, hashes of counts; they carry the same tag
--
-- ARGV  prefix of the seconds' keys, how many seconds, seconds after which a worker is forgotten
--
-- Reply {workers, {field, sum, field, sum, …}}
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
