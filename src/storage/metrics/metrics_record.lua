-- Rollup records: what `src/analytics/rollup.py` encodes, read and merged.

local POINT = 14        -- bytes of a point
local RECORD = 56       -- bytes of a rollup record
local FORMAT = '<ddddddiI'
local SKETCH_HEADER = 8 -- bytes: number of points that the sketch leaves out, length of its compacted part

-- Lua numbers print as 1.8e+15 otherwise.
local function text(number)
  return string.format('%.0f', number)
end

local function merged(old, new)
  local count, sum, lost, low, high, value, hour, offset = struct.unpack(FORMAT, new)
  local count1, sum1, lost1, low1, high1, value1, hour1, offset1 = struct.unpack(FORMAT, old)
  local total = sum1 + sum
  local rounding -- Neumaier: the smaller summand is the one that lost digits
  if math.abs(sum1) >= math.abs(sum) then
    rounding = (sum1 - total) + sum
  else
    rounding = (sum - total) + sum1
  end
  if hour1 > hour or hour1 == hour and offset1 > offset then
    hour, offset, value = hour1, offset1, value1
  end
  return struct.pack(FORMAT, count1 + count, total, lost1 + lost + rounding,
    low < low1 and low or low1, high > high1 and high or high1, value, hour, offset)
end

local function is_empty(record)
  return not record or record == '' or record:sub(1, 8) == '\0\0\0\0\0\0\0\0'
end

local function merge_into(record, new)
  return is_empty(record) and new or merged(record, new)
end

local function count_of(record)
  return is_empty(record) and 0 or (struct.unpack('<d', record))
end

local function read_record(record)
  assert(not record or record == '' or #record == RECORD, 'a foreign value stands in place of a rollup')
  return record
end

-- Return a number that no other run of a script has returned: what it marks is never taken for something older. It is
-- not `now`, which a test may stop.
local function unique()
  local time = redis.call('TIME')
  return text(time[1] * 1000000 + time[2])
end
