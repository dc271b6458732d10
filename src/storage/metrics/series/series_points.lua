-- Reads points of one hour of a type, with their places.

local POINT, RECORD, MINUTE_US = 14, 56, 60000000
local COVERAGE = 62 * 4 -- bytes at the beginning of an hour's block: its version, and what it covers

local function points_key(prefix, hour, minute)
  local head = prefix .. 'r:' .. hour
  return minute == -1 and head or head .. ':' .. minute
end

-- Return where the points lie of the head and of the minutes from `first` to `last`, without those that a block of
-- series covers already: {minute (-1: head), first place, place after the last, …}; and their number.
local function places_of_hour(prefix, hour, first, last, covered)
  local places, count = {}, 0
  local function add(minute, stop)
    local start = covered(minute)
    if stop > start then
      places[#places + 1], places[#places + 2], places[#places + 3] = minute, start, stop
      count = count + stop - start
    end
  end
  add(-1, math.floor(redis.call('STRLEN', points_key(prefix, hour, -1)) / POINT))
  local records = redis.call('GET', prefix .. 'n:' .. hour) or ''
  for minute = first, math.min(last, #records / RECORD - 1) do
    add(minute, (struct.unpack('<d', records, minute * RECORD + 1)))
  end
  return places, count
end

-- Return {points of the head, minute, its points, minute, its points, …} of the minutes from `first` to `last`,
-- without those that a block of series covers already. `covered(minute)` is the number of these, of the head if the
-- minute is -1. At most `most` points are returned; nil is all.
local function points_of_hour(prefix, hour, first, last, covered, most)
  local key, left = prefix .. 'r:' .. hour, most or math.huge
  local function points_after(part_key, number)
    local points = redis.call('GETRANGE', part_key, number * POINT, most and (number + left) * POINT - 1 or -1)
    left = left - #points / POINT
    return points
  end
  local reply = {points_after(key, covered(-1))}
  local records = redis.call('GET', prefix .. 'n:' .. hour) or ''
  for minute = first, last do
    local record = records:sub(minute * RECORD + 1, (minute + 1) * RECORD)
    local count = #record == RECORD and struct.unpack('<d', record) or 0
    if count > covered(minute) and left > 0 then
      reply[#reply + 1] = minute
      reply[#reply + 1] = points_after(key .. ':' .. minute, covered(minute))
    end
  end
  return reply
end

-- Return how many points of the head (-1) or of a minute a block of series covers. It begins with its version, these
-- 61 numbers, and the length of the rest.
local function coverage(block)
  return function(minute)
    return block and block ~= '' and struct.unpack('<I', block:sub(4 * minute + 9, 4 * minute + 12)) or 0
  end
end
