-- Reads what is stored of one type in some hours: whole hours as one record and sketch, other hours minute by
-- minute, and minutes that the window cuts as points. Writes nothing.
--
-- KEYS  m:{<type>}:d; the other keys of the type are made here, they carry the same hash tag
-- ARGV  prefix of the keys; for each reading its number, the first µs within it, the µs after the last, and its
--       detail: 'day' a whole day, 'hour' a whole hour, 'minutes' an hour minute by minute, 'points' an hour as
--       points. The number is that of the day or of the hour.
--
-- Reply for each reading {points of the head, minute or -1, record, sketch, points, …}. A record is followed by a
--       sketch, if there is one, and by the points that the sketch leaves out. Without a record the points are all
--       points of the minute. The head holds points of any minute; it is empty for a whole hour and a whole day,
--       whose records cover it.

local POINT, RECORD = 14, 56 -- bytes
local MINUTE_US = 60000000
local prefix = ARGV[1]

-- The sketch and the points that it leaves out; all `count` points if there is no sketch.
local function sketch_and_points(sketch_key, points_key, count)
  local sketch = redis.call('GET', sketch_key)
  local left_out = sketch and struct.unpack('<I', sketch) or count
  local points = left_out > 0 and redis.call('GETRANGE', points_key, 0, left_out * POINT - 1) or ''
  return sketch or '', points
end

local function whole_hour(hour)
  local slot = hour % 24 * RECORD
  local record = redis.call('GETRANGE', prefix .. 'h:' .. math.floor(hour / 24), slot, slot + RECORD - 1)
  local count = #record == RECORD and struct.unpack('<d', record) or 0
  if count == 0 then
    return {''}
  end
  local sketch, points = sketch_and_points(prefix .. 'p:h:' .. hour, prefix .. 'r:' .. hour, count)
  return {'', -1, record, sketch, points}
end

local function by_minute(hour, first, stop, all_points)
  local key = prefix .. 'r:' .. hour
  local reply = {redis.call('GET', key) or ''}
  local records = redis.call('GET', prefix .. 'n:' .. hour)
  if not records then
    return reply
  end
  for minute = math.floor(first / MINUTE_US), math.floor((stop - 1) / MINUTE_US) do
    local record = records:sub(minute * RECORD + 1, (minute + 1) * RECORD)
    local count = #record == RECORD and struct.unpack('<d', record) or 0
    if count > 0 then
      local start, size = minute * MINUTE_US, #reply
      reply[size + 1] = minute
      if all_points or start < first or start + MINUTE_US > stop then
        reply[size + 2], reply[size + 3] = '', ''
        reply[size + 4] = redis.call('GET', key .. ':' .. minute) or ''
      else
        reply[size + 2] = record
        reply[size + 3], reply[size + 4] = sketch_and_points(prefix .. 'p:m:' .. hour * 60 + minute,
          key .. ':' .. minute, count)
      end
    end
  end
  return reply
end

local function whole_day(day)
  local record = redis.call('HGET', KEYS[1], day)
  return record and {'', -1, record, redis.call('GET', prefix .. 'p:d:' .. day) or '', ''} or {''}
end

local reply = {}
for i = 2, #ARGV, 4 do
  local number, first, stop, detail = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), ARGV[i + 3]
  local reading
  if detail == 'day' then
    reading = whole_day(number)
  elseif detail == 'hour' then
    reading = whole_hour(number)
  else
    reading = by_minute(number, first, stop, detail == 'points')
  end
  reply[#reply + 1] = reading
end
return reply
