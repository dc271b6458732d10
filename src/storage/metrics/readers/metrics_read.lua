-- Reads what is stored of one type in some hours: whole hours as one record and sketch, other hours by their minutes,
-- and minutes that the window cuts as points. Writes nothing.
--
-- KEYS  m:{<type>}:d; the script builds the other keys of the type, with the same hash tag
-- ARGV  prefix of the keys; for each reading its number, the first µs within it, the µs after the last, and its
--       detail: 'day' a whole day, 'hour' a whole hour, 'span' the minutes of an hour together, 'minutes' an hour
--       minute by minute, 'points' an hour as points. The number is that of the day or of the hour.
--
-- Reply for each reading {points of the head, item, …}. An item is several elements: minute or -1; records; number of
--       strings of entries; number of strings of points; these strings. The entries are those of the records' sketches,
--       and the points those that these leave out. Without records the points are all points of the minute. With
--       'span', the records are those of several minutes, of which the first is named. The head holds points of any
--       minute; it is empty for a whole hour and a whole day, whose records cover it.

local POINT, RECORD = 14, 56 -- bytes
local SKETCH_HEADER = 8
local MINUTE_SKETCH = 512 -- points of a minute without which it has no sketch
local MINUTE_US = 60000000
local prefix = ARGV[1]

local function add_item(reply, minute, records, entries, points)
  local size = #reply
  reply[size + 1], reply[size + 2], reply[size + 3], reply[size + 4] = minute, records, #entries, #points
  for i, part in ipairs(entries) do
    reply[size + 4 + i] = part
  end
  for i, part in ipairs(points) do
    reply[size + 4 + #entries + i] = part
  end
end

-- Return the entries of a sketch and the points that it leaves out, which are all `count` points if there is no sketch;
-- nil for what there is none of.
local function entries_and_points(sketch_key, points_key, count)
  local sketch = redis.call('GET', sketch_key)
  local left_out = sketch and struct.unpack('<I', sketch) or count
  local points = left_out > 0 and redis.call('GETRANGE', points_key, 0, left_out * POINT - 1) or nil
  return sketch and sketch:sub(SKETCH_HEADER + 1) or nil, points
end

local function whole_hour(hour)
  local slot = hour % 24 * RECORD
  local record = redis.call('GETRANGE', prefix .. 'h:' .. math.floor(hour / 24), slot, slot + RECORD - 1)
  local count = #record == RECORD and struct.unpack('<d', record) or 0
  if count == 0 then
    return {''}
  end
  local entries, points = entries_and_points(prefix .. 'p:h:' .. hour, prefix .. 'r:' .. hour, count)
  local reply = {'', -1, record, entries and 1 or 0, points and 1 or 0, entries or points}
  reply[7] = entries and points
  return reply
end

-- Return the records of the minutes from `first` to `last`, their sketches' entries, and the points that these leave
-- out. One command reads the points of all minutes that are too small for a sketch.
local function whole_minutes(hour, records, first, last)
  records = records:sub(first * RECORD + 1, (last + 1) * RECORD)
  local entries, points, small = {}, {}, {}
  for place = 1, #records, RECORD do
    local count, minute = struct.unpack('<d', records, place), first + (place - 1) / RECORD
    local key = prefix .. 'r:' .. hour .. ':' .. minute
    if count >= MINUTE_SKETCH then
      entries[#entries + 1], points[#points + 1] = entries_and_points(prefix .. 'p:m:' .. hour * 60 + minute, key, count)
    elseif count > 0 then
      small[#small + 1] = key
    end
  end
  for _, some in ipairs(#small > 0 and redis.call('MGET', unpack(small)) or {}) do
    points[#points + 1] = some or ''
  end
  return records, entries, points
end

-- `detail` is 'span', 'minutes' or 'points'.
local function by_minute(hour, first, stop, detail)
  local key = prefix .. 'r:' .. hour
  local reply = {redis.call('GET', key) or ''}
  local records = redis.call('GET', prefix .. 'n:' .. hour)
  if not records then
    return reply
  end
  local minute, last = math.floor(first / MINUTE_US), math.floor((stop - 1) / MINUTE_US)
  while minute <= last do
    local next_minute = minute + 1
    if detail == 'points' or minute * MINUTE_US < first or next_minute * MINUTE_US > stop then
      local points = redis.call('GET', key .. ':' .. minute)
      if points then
        add_item(reply, minute, '', {}, {points})
      end
    else
      if detail == 'span' then
        next_minute = math.floor(stop / MINUTE_US)
      end
      add_item(reply, minute, whole_minutes(hour, records, minute, next_minute - 1))
    end
    minute = next_minute
  end
  return reply
end

local function whole_day(day)
  local record = redis.call('HGET', KEYS[1], day)
  local sketch = redis.call('GET', prefix .. 'p:d:' .. day) or ''
  return record and {'', -1, record, 1, 0, sketch:sub(SKETCH_HEADER + 1)} or {''}
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
    reading = by_minute(number, first, stop, detail)
  end
  reply[#reply + 1] = reading
end
return reply
