-- Reads what a summary by labels of one type is made of. Writes nothing.
--
-- @include ../series/series_points
-- KEYS  m:{<type>}:u; the script builds the other keys of the type, with the same hash tag
-- ARGV  prefix of the keys; nothing more for all points, or for each hour its number, the first µs within it, the µs
--       after the last, and 'block' if the whole hour is needed, 'points' if only its points will do
-- Reply {version of the series dictionary, the block of all hours or '', {hour, block of the hour or '', points as
--       points_of_hour returns them}, …}
local prefix = ARGV[1]
local reply = {redis.call('HGET', prefix .. 's', '#') or '0', ''}

local function nothing()
  return 0
end

if #ARGV == 1 then
  reply[2] = redis.call('GET', prefix .. 'q:all') or ''
  for _, hour in ipairs(redis.call('HKEYS', KEYS[1])) do
    local block = redis.call('GET', prefix .. 'q:' .. hour)
    reply[#reply + 1] = {tonumber(hour), '', points_of_hour(prefix, hour, 0, 59, coverage(block))}
  end
  return reply
end

for i = 2, #ARGV, 4 do
  local hour, first, stop = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if ARGV[i + 3] == 'block' then
    local block = redis.call('GET', prefix .. 'q:' .. hour)
    local points = {''}
    if not block or redis.call('HEXISTS', KEYS[1], hour) == 1 then
      points = points_of_hour(prefix, hour, 0, 59, coverage(block))
    end
    reply[#reply + 1] = {tonumber(hour), block or '', points}
  else
    local points = points_of_hour(prefix, hour, math.floor(first / MINUTE_US), math.floor((stop - 1) / MINUTE_US), nothing)
    reply[#reply + 1] = {tonumber(hour), '', points}
  end
end
return reply
