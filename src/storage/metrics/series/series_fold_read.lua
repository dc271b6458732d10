-- Reads what is needed to add an hour's new points to its block of series, and to the block of all hours.
--
-- @include series_points
-- KEYS  m:{<type>}:u; the script builds the other keys of the type, with the same hash tag
-- ARGV  prefix of the keys, number of the hour, maximum number of points
-- Reply {generation of the type or '', block of the hour or '', block of all hours or '', new points as points_of_hour
--       returns them}
local prefix, hour = ARGV[1], ARGV[2]
local block = redis.call('GET', prefix .. 'q:' .. hour)
return {
  redis.call('HGET', prefix .. 'd', 'generation') or '',
  block or '',
  redis.call('GET', prefix .. 'q:all') or '',
  points_of_hour(prefix, hour, 0, 59, coverage(block), tonumber(ARGV[3])),
}
