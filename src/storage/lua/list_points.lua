-- List points of one type, newest first: by timestamp, then by arrival, both descending.
--
-- KEYS  m:{<type>}:hours   the hours that have points, a sorted set by their number
--       m:{<type>}:raw:<hour> are made here; they carry the same hash tag.
--
-- ARGV  prefix of the raw keys, how many points at the most, and where to go on after, if not at the newest:
--       number of the hour, µs within the hour, arrival
--
-- Reply {hour, {member, µs within the hour, …}, hour, {…}, …}; members as add_points.lua makes them

local CHUNK = 100

local limit = tonumber(ARGV[2])

local function arrival_of(member)
  local a, b, c, d, e, f = member:byte(1, 6)
  return ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f
end

-- The rank, newest first, of the first point after the place to go on after. Points of the same µs are
-- searched by halves: there may be thousands.
local function rank_after(key, offset, arrival)
  local low = redis.call('ZCOUNT', key, '(' .. offset, '+inf')
  local high = low + redis.call('ZCOUNT', key, offset, offset)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if arrival_of(redis.call('ZREVRANGE', key, middle, middle)[1]) < arrival then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local reply, found, from, hours = {}, 0, ARGV[3] or '+inf', nil
repeat
  hours = redis.call('ZREVRANGEBYSCORE', KEYS[1], from, '-inf', 'LIMIT', 0, CHUNK)
  for _, hour in ipairs(hours) do
    local key = ARGV[1] .. hour
    local first = hour == ARGV[3] and rank_after(key, ARGV[4], tonumber(ARGV[5])) or 0
    local points = redis.call('ZREVRANGE', key, first, first + limit - found - 1, 'WITHSCORES')
    if #points > 0 then -- the hour may have expired
      reply[#reply + 1] = hour
      reply[#reply + 1] = points
      found = found + #points / 2
    end
    if found == limit then
      return reply
    end
    from = '(' .. hour
  end
until #hours < CHUNK
return reply
