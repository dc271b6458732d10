-- Reads points of one type in order of time, in complete minutes, until there are at least `most` points.
--
-- KEYS  m:{<type>}:hours; the script builds the other keys of the type, with the same hash tag
-- ARGV  prefix of the keys, number of the first hour, its first minute (0 to 59), number of the last hour, most points
-- Reply {generation of the type or '', version of its series dictionary, next hour or '' at the end, its first minute,
--       hour, points of its head, {minute, number of its points, its points, …}, hour, …}. A minute with more than
--       `most` points comes last, without its points. A head also has points of other minutes.

local POINT, RECORD, CHUNK = 14, 56, 100
local HOUR_COST = 5 -- the number of points that take as much time as an hour, even an expired one
local prefix, first_hour, first_minute, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])

local count, seen, hours = 0, 0, nil
local reply = {redis.call('HGET', prefix .. 'd', 'generation') or '', redis.call('HGET', prefix .. 's', '#') or '0', '', 0}

local function continue_at(hour, minute)
  reply[3] = minute < 60 and hour or hour + 1
  reply[4] = minute % 60
  return reply
end

repeat
  hours = redis.call('ZRANGEBYSCORE', KEYS[1], first_hour, ARGV[4], 'LIMIT', seen, CHUNK)
  for _, name in ipairs(hours) do
    local hour = tonumber(name)
    if count >= most then
      return continue_at(hour, hour == first_hour and first_minute or 0)
    end
    local key = prefix .. 'r:' .. name
    local head = redis.call('GET', key) or ''
    local records = redis.call('GET', prefix .. 'n:' .. name) or ''
    local minutes = {}
    reply[#reply + 1] = hour
    reply[#reply + 1] = head
    reply[#reply + 1] = minutes
    count = count + HOUR_COST + #head / POINT
    for minute = hour == first_hour and first_minute or 0, #records / RECORD - 1 do
      local size = struct.unpack('<d', records:sub(minute * RECORD + 1, minute * RECORD + 8))
      if size > most then
        minutes[#minutes + 1] = minute
        minutes[#minutes + 1] = size
        minutes[#minutes + 1] = ''
        return continue_at(hour, minute + 1)
      elseif size > 0 then
        minutes[#minutes + 1] = minute
        minutes[#minutes + 1] = size
        minutes[#minutes + 1] = redis.call('GET', key .. ':' .. minute) or ''
        count = count + size
        if count >= most then
          return continue_at(hour, minute + 1)
        end
      end
    end
  end
  seen = seen + #hours
until #hours < CHUNK
return reply
