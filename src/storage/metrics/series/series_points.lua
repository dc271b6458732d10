-- Reads points of one hour of a type, with their places.

local POINT, RECORD, MINUTE_US = 14, 56, 60000000

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
    return block and struct.unpack('<I', block:sub(4 * minute + 9, 4 * minute + 12)) or 0
  end
end
