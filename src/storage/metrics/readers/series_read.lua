-- Reads what a summary by labels of one type is made of. Writes nothing.
--
-- @include ../series/series_points
-- KEYS  m:{<type>}:u; the other keys of the type are made here, they carry the same hash tag
-- ARGV  prefix of the keys, maximum number of points, maximum number of hours with points that no block has; nothing more
--       for all points, or for each hour its number, the first µs within it, the µs after the last, and 'block' if the
--       whole hour is needed, 'points' if only its points will do
-- Reply {version of the series dictionary, generation of the type or '', the block of all hours or '', 0 if there are
--       more hours with points that no block has than may be read, {hour, block of the hour or '', what points_or_places
--       returns}, …}
local prefix, most_points, most_hours = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local reply = {redis.call('HGET', prefix .. 's', '#') or '0', redis.call('HGET', prefix .. 'd', 'generation') or '', '', 1}
local left = most_points

local function nothing()
  return 0
end

-- Return the points of an hour that `covered` leaves as {minute (-1: head), first place, place after the last, its
-- points, …}. Points beyond the maximum number are left out: then each string of points is ''.
local function points_or_places(hour, first, last, covered)
  local places, count = places_of_hour(prefix, hour, first, last, covered)
  local found, are_read = {}, count <= left
  left = are_read and left - count or left
  for i = 1, #places, 3 do
    local minute, start, stop = places[i], places[i + 1], places[i + 2]
    local points = are_read and redis.call('GETRANGE', points_key(prefix, hour, minute), start * POINT, stop * POINT - 1)
    for _, part in ipairs({minute, start, stop, points or ''}) do
      found[#found + 1] = part
    end
  end
  return found
end

if #ARGV == 3 then
  reply[3] = redis.call('GET', prefix .. 'q:all') or ''
  if redis.call('HLEN', KEYS[1]) > most_hours then
    reply[4] = 0
    return reply
  end
  for _, hour in ipairs(redis.call('HKEYS', KEYS[1])) do
    local block = redis.call('GETRANGE', prefix .. 'q:' .. hour, 0, COVERAGE - 1)
    reply[#reply + 1] = {tonumber(hour), '', points_or_places(hour, 0, 59, coverage(block))}
  end
  return reply
end

for i = 4, #ARGV, 4 do
  local hour, first, stop = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if ARGV[i + 3] == 'block' then
    local block = redis.call('GET', prefix .. 'q:' .. hour) or ''
    local points = {}
    if block == '' or redis.call('HEXISTS', KEYS[1], hour) == 1 then
      points = points_or_places(hour, 0, 59, coverage(block))
    end
    reply[#reply + 1] = {tonumber(hour), block, points}
  else
    first, stop = math.floor(first / MINUTE_US), math.floor((stop - 1) / MINUTE_US)
    reply[#reply + 1] = {tonumber(hour), '', points_or_places(hour, first, stop, nothing)}
  end
end
return reply
