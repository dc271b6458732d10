-- Reads points of one hour of a type, with their places.

local POINT, RECORD, MINUTE_US = 14, 56, 60000000

-- Return {points of the head, minute, its points, minute, its points, …} of the minutes from `first` to `last`,
-- without those that a block of series covers already. `covered(minute)` is the number of these, of the head if the
-- minute is -1.
local function points_of_hour(prefix, hour, first, last, covered)
  local key = prefix .. 'r:' .. hour
  local reply = {redis.call('GETRANGE', key, covered(-1) * POINT, -1)}
  local records = redis.call('GET', prefix .. 'n:' .. hour) or ''
  for minute = first, last do
    local record = records:sub(minute * RECORD + 1, (minute + 1) * RECORD)
    local count = #record == RECORD and struct.unpack('<d', record) or 0
    if count > covered(minute) then
      reply[#reply + 1] = minute
      reply[#reply + 1] = redis.call('GETRANGE', key .. ':' .. minute, covered(minute) * POINT, -1)
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
