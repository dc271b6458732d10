-- Reads points of one type, newest first, as many strings of points as are sure to hold `limit` points.
--
-- KEYS  m:{<type>}:hours; the script builds the other keys of the type, with the same hash tag
-- ARGV  prefix of the keys, limit, and the position to continue at, if not the newest point: number of the hour,
--       µs within the hour
-- Reply {generation of the type or '', version of its series dictionary, hour, points of its head, {minute, points,
--       minute, points, …}, hour, …}, newest hour first

local POINT, RECORD, MINUTE_US, CHUNK = 14, 56, 60000000, 100
local prefix, limit = ARGV[1], tonumber(ARGV[2])
local from_hour = ARGV[3] and tonumber(ARGV[3])
local from_minute = ARGV[3] and math.floor(tonumber(ARGV[4]) / MINUTE_US)

local sure, seen, hours = 0, 0, nil
local reply = {redis.call('HGET', prefix .. 'd', 'generation') or '', redis.call('HGET', prefix .. 's', '#') or '0'}
repeat
  hours = redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[3] or '+inf', '-inf', 'LIMIT', seen, CHUNK)
  for _, name in ipairs(hours) do
    local hour = tonumber(name)
    local key = prefix .. 'r:' .. name
    local head = redis.call('GET', key) or ''
    local records = redis.call('GET', prefix .. 'n:' .. name) or ''
    local minutes = {}
    for minute = hour == from_hour and from_minute or 59, 0, -1 do
      local record = records:sub(minute * RECORD + 1, (minute + 1) * RECORD)
      local count = #record == RECORD and struct.unpack('<d', record) or 0
      if count > 0 and sure < limit then
        minutes[#minutes + 1] = minute
        minutes[#minutes + 1] = redis.call('GET', key .. ':' .. minute) or ''
        if hour ~= from_hour or minute ~= from_minute then -- the list may continue within that minute
          sure = sure + count
        end
      end
    end
    if #head > 0 or #minutes > 0 then -- the hour may have expired
      reply[#reply + 1] = hour
      reply[#reply + 1] = head
      reply[#reply + 1] = minutes
    end
    if hour ~= from_hour then
      sure = sure + #head / POINT
    end
    if sure >= limit then
      return reply
    end
  end
  seen = seen + #hours
until #hours < CHUNK
return reply
