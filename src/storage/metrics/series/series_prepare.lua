-- Notes some hours of a type that has no labels yet as hours with points that no block of series has. After the last
-- ones the type is prepared for its first labels. While the type is being prepared, its writes note their own hours, and
-- there is no block of series. A deletion, which changes the generation, makes the preparation begin again.
--
-- KEYS  m:{<type>}:d; the script builds the other keys of the type, with the same hash tag
-- ARGV  prefix of the keys, maximum number of hours
-- Reply {1 if there are more hours, else 0, hour, …}
--
-- @include ../metrics_record
local prefix, at_once = ARGV[1], tonumber(ARGV[2])
local total, generation, labelled, preparing = unpack(redis.call('HMGET', KEYS[1], 'all', 'generation', 'labelled', 'preparing'))
if not total or labelled then
  return {0}
end
generation = generation or ''
local first = '-inf'
if preparing then
  local begun, last = preparing:match('^(%S*) (%S+)$')
  if begun == generation then
    first = '(' .. last
  end
end
local hours = redis.call('ZRANGEBYSCORE', prefix .. 'hours', first, '+inf', 'LIMIT', 0, at_once)
for _, hour in ipairs(hours) do
  local slot = hour % 24 * RECORD
  local record = redis.call('GETRANGE', prefix .. 'h:' .. math.floor(hour / 24), slot, slot + RECORD - 1)
  redis.call('HSET', prefix .. 'u', hour, text(count_of(read_record(record))))
end
local reply = {#hours == at_once and 1 or 0}
if reply[1] == 1 then
  redis.call('HSET', KEYS[1], 'preparing', generation .. ' ' .. hours[#hours])
else
  redis.call('HSET', KEYS[1], 'labelled', 1)
  redis.call('HDEL', KEYS[1], 'preparing')
end
for i, hour in ipairs(hours) do
  reply[i + 1] = tonumber(hour)
end
return reply
