-- Stores points of several types. The keys of a type, m:{<type>}:<suffix>, are made here; all of them carry the
-- type's hash tag. `src/storage/metrics/layout.py` describes the keys.
--
-- needs `now.lua`
-- ARGV  from `first` on: maximum number of types, maximum number of series of a type, number of types; and for
--       each type its name; retention in seconds (0: for ever); latest timestamp in µs; version of the series
--       dictionary ('' if only points without labels come); number of new series, and for each its number and
--       text; sketch entries of all its points ('' if they are those of its only minute); number of minutes in ascending order, and for each its number, number of points, points, rollup
--       record, sketch entries

local POINT = 14        -- bytes of a point
local RECORD = 56       -- bytes of a rollup record
local FORMAT = '<ddddddiI'
local HEAD = 1024       -- points of an hour that are kept in its head
local HOUR_SKETCH = 64  -- points of an hour before it has a sketch
local MINUTE_SKETCH = 512
local RECENT = 26 * 3600 -- seconds after their end that minutes have a sketch
local SKETCH_HEADER = 8 -- bytes: number of points that the sketch leaves out, length of its compacted part
local MAX_LOG = 8192    -- bytes of entries beyond the compacted part before it is compacted

local taken = 0
local function take()
  taken = taken + 1
  return ARGV[taken]
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
  return not record or #record < RECORD or record:byte(1, 8) == 0 and record:sub(1, 8) == '\0\0\0\0\0\0\0\0'
end

local function merge_into(record, new)
  return is_empty(record) and new or merged(record, new)
end

local function count_of(record)
  return is_empty(record) and 0 or (struct.unpack('<d', record))
end


-- Lua numbers print as 1.8e+15 otherwise.
local function text(number)
  return string.format('%.0f', number)
end

local function expire(key, end_seconds, keep_seconds)
  redis.call('EXPIRE', key, math.max(1, math.ceil(end_seconds + keep_seconds - now / 1000000)))
end

local FOLD_POINTS = 50000 -- of an hour that no block of series has yet before they are added to one
local MAX_FOLDS = 20      -- hours reported at once

local hints = {} -- keys of sketches whose log is to be compacted
local folds = {} -- type and hour, by turns, whose points are to be added to a block of series

-- Add entries to a sketch. `length` is its length before, `left_out` the number of earlier points that a new
-- sketch leaves out. `end_seconds` and `keep_seconds` say when it expires; nil is never.
local function add_entries(key, length, left_out, entries, end_seconds, keep_seconds)
  if length == 0 then
    redis.call('SET', key, struct.pack('<II', left_out, 0) .. entries)
    if keep_seconds then
      expire(key, end_seconds, keep_seconds)
    end
    return
  end
  local log = redis.call('APPEND', key, entries) - SKETCH_HEADER
  if log > MAX_LOG and log - struct.unpack('<I', redis.call('GETRANGE', key, 4, 7)) > MAX_LOG then
    hints[#hints + 1] = key
  end
end

-- Let a string have no spare room any more, as it grows no further.
local function trim(key)
  local value = redis.call('GET', key)
  if value then
    redis.call('SET', key, value, 'KEEPTTL')
  end
end

-- Read the arguments of one type and what the write depends on. Writes nothing, so that an error here, such as a
-- foreign value under one of the keys, leaves everything as it was.
local function plan_type()
  local t = {name = take(), retention = tonumber(take()), latest = take(), version = take(), series = {}}
  local prefix = 'm:{' .. t.name .. '}:'
  t.prefix = prefix
  for i = 1, tonumber(take()) do
    t.series[i] = {take(), take()}
  end
  if t.version ~= '' then
    t.is_stale = (redis.call('HGET', prefix .. 's', '#') or '0') ~= t.version
    t.known_series = redis.call('HLEN', prefix .. 's') - (t.version ~= '0' and 1 or 0)
  end
  local all_entries = take()
  t.hours, t.days = {}, {}
  local hour
  for _ = 1, tonumber(take()) do
    local minute = {number = tonumber(take()), count = tonumber(take()), points = take(), rollup = take(),
      entries = take()}
    local number = math.floor(minute.number / 60)
    if not hour or hour.number ~= number then
      hour = {number = number, count = 0, minutes = {}}
      t.hours[#t.hours + 1] = hour
    end
    hour.minutes[#hour.minutes + 1] = minute
    hour.count = hour.count + minute.count
    hour.rollup = hour.rollup and merged(hour.rollup, minute.rollup) or minute.rollup
    hour.entries = hour.entries and hour.entries .. minute.entries or minute.entries
  end
  local day
  for _, hour in ipairs(t.hours) do
    local number = math.floor(hour.number / 24)
    if not day or day.number ~= number then
      day = {number = number, key = prefix .. 'p:d:' .. number}
      day.sketch_length = redis.call('STRLEN', day.key)
      t.days[#t.days + 1] = day
    end
    day.rollup = day.rollup and merged(day.rollup, hour.rollup) or hour.rollup
    day.entries = day.entries and day.entries .. hour.entries or hour.entries
    hour.key = prefix .. 'r:' .. hour.number
    hour.minutes_key = prefix .. 'n:' .. hour.number
    hour.slot_key = prefix .. 'h:' .. day.number
    hour.slot = hour.number % 24 * RECORD
    hour.sketch_key = prefix .. 'p:h:' .. hour.number
    hour.is_closed = redis.call('EXISTS', hour.minutes_key) == 1
    hour.length = redis.call('STRLEN', hour.key)
    hour.record = redis.call('GETRANGE', hour.slot_key, hour.slot, hour.slot + RECORD - 1)
    hour.sketch_length = redis.call('STRLEN', hour.sketch_key)
    hour.is_in_head = not hour.is_closed and hour.length + hour.count * POINT <= HEAD * POINT
    if not hour.is_in_head then
      for _, minute in ipairs(hour.minutes) do
        local place = minute.number % 60
        minute.key = hour.key .. ':' .. place
        minute.sketch_key = prefix .. 'p:m:' .. minute.number
        minute.slot = place * RECORD
        minute.record = hour.is_closed
          and redis.call('GETRANGE', hour.minutes_key, minute.slot, minute.slot + RECORD - 1)
        minute.length = redis.call('STRLEN', minute.key)
        minute.sketch_length = redis.call('STRLEN', minute.sketch_key)
      end
    end
  end
  for _, day in ipairs(t.days) do
    t.rollup = t.rollup and merged(t.rollup, day.rollup) or day.rollup
    t.entries = all_entries ~= '' and all_entries or day.entries
  end
  if #t.days == 1 then
    t.days[1].entries = t.entries
  end
  t.totals = redis.call('HMGET', prefix .. 'd', 'all', 'open', 'labelled')
  for _, day in ipairs(t.days) do
    day.record = redis.call('HGET', prefix .. 'd', day.number)
  end
  t.sketch_length = redis.call('STRLEN', prefix .. 'p:all')
  return t
end

-- Take what an hour that is written no more does not need: the spare room of its strings.
local function seal(t, minute)
  local hour = math.floor(minute / 60)
  trim(t.prefix .. 'r:' .. hour)
  trim(t.prefix .. 'r:' .. hour .. ':' .. minute % 60)
  for _, key in ipairs({t.prefix .. 'p:m:' .. minute, t.prefix .. 'p:h:' .. hour}) do
    if redis.call('EXISTS', key) == 1 then
      hints[#hints + 1] = key
    end
  end
end

-- Partitions expire by themselves; the lists of hours and days do not.
local function prune(t)
  local cutoff = now / 1000000 - t.retention
  local hours = redis.call('ZREMRANGEBYSCORE', t.prefix .. 'hours', '-inf', '(' .. math.floor(cutoff / 3600))
  if hours > 0 then
    for _, day in ipairs(redis.call('HKEYS', t.prefix .. 'd')) do
      if tonumber(day) and tonumber(day) < math.floor(cutoff / 86400) then
        redis.call('HDEL', t.prefix .. 'd', day)
      end
    end
  end
end

local function report_fold(t, hour)
  if #folds < 2 * MAX_FOLDS then
    folds[#folds + 1] = t.name
    folds[#folds + 1] = tonumber(hour)
  end
end

-- Count the points of an hour that no block of series has yet, if the type has labels.
local function count_unfolded(t, hour)
  if t.is_labelled and redis.call('HINCRBY', t.prefix .. 'u', hour.number, hour.count) > FOLD_POINTS then
    report_fold(t, hour.number)
  end
end

local function write_hour(t, hour)
  local keep = t.retention > 0 and t.retention or nil
  local hour_end = (hour.number + 1) * 3600
  if keep and (hour_end + keep) * 1000000 <= now then
    return nil -- expired on arrival: counted in the totals of all time only
  end
  count_unfolded(t, hour)
  local before = count_of(hour.record)
  if before == 0 then
    redis.call('ZADD', t.prefix .. 'hours', hour.number, hour.number)
    if keep then
      prune(t)
    end
  end
  redis.call('SETRANGE', hour.slot_key, hour.slot, merge_into(hour.record, hour.rollup))
  if keep and before == 0 then
    expire(hour.slot_key, (math.floor(hour.number / 24) + 1) * 86400, keep)
  end
  if hour.sketch_length > 0 or before + hour.count >= HOUR_SKETCH then
    add_entries(hour.sketch_key, hour.sketch_length, before, hour.entries, hour_end, keep)
  end
  if hour.is_in_head then
    for _, minute in ipairs(hour.minutes) do
      redis.call('APPEND', hour.key, minute.points)
    end
    if keep and hour.length == 0 then
      expire(hour.key, hour_end, keep)
    end
    return hour.number * 60
  end
  for _, minute in ipairs(hour.minutes) do
    redis.call('SETRANGE', hour.minutes_key, minute.slot, merge_into(minute.record, minute.rollup))
    local length = redis.call('APPEND', minute.key, minute.points)
    if keep and minute.length == 0 then
      expire(minute.key, hour_end, keep)
    end
    if minute.sketch_length > 0 or length >= MINUTE_SKETCH * POINT then
      local minute_end = (minute.number + 1) * 60
      local recent = keep and math.min(keep, RECENT) or RECENT
      if (minute_end + recent) * 1000000 > now then
        add_entries(minute.sketch_key, minute.sketch_length, minute.length / POINT, minute.entries, minute_end,
          recent)
      end
    end
  end
  if keep and not hour.is_closed then
    expire(hour.minutes_key, hour_end, keep)
  end
  return hour.minutes[#hour.minutes].number
end

local function write_type(registry, t)
  local newest
  t.is_labelled = t.totals[3] or t.version ~= ''
  if t.is_labelled and not t.totals[3] then -- from now on: what was stored before belongs to the series without labels
    for _, hour in ipairs(redis.call('ZRANGE', t.prefix .. 'hours', 0, -1)) do
      local slot = hour % 24 * RECORD
      local record = redis.call('GETRANGE', t.prefix .. 'h:' .. math.floor(hour / 24), slot, slot + RECORD - 1)
      redis.call('HSET', t.prefix .. 'u', hour, text(count_of(record)))
    end
  end
  for _, hour in ipairs(t.hours) do
    newest = write_hour(t, hour) or newest
  end
  local fields = {'all', merge_into(t.totals[1], t.rollup)}
  for _, day in ipairs(t.days) do
    local day_end = (day.number + 1) * 86400
    if t.retention == 0 or (day_end + t.retention) * 1000000 > now then
      fields[#fields + 1] = day.number
      fields[#fields + 1] = merge_into(day.record, day.rollup)
      add_entries(day.key, day.sketch_length, 0, day.entries, day_end, t.retention > 0 and t.retention or nil)
    end
  end
  local open = tonumber(t.totals[2])
  if newest and (not open or newest > open) then
    if open then
      seal(t, open)
    end
    if t.is_labelled and open and math.floor(open / 60) < math.floor(newest / 60) then
      for _, hour in ipairs(redis.call('HKEYS', t.prefix .. 'u')) do
        if tonumber(hour) < math.floor(newest / 60) then
          report_fold(t, hour)
        end
      end
    end
    fields[#fields + 1] = 'open'
    fields[#fields + 1] = text(newest)
  end
  if t.is_labelled and not t.totals[3] then
    fields[#fields + 1] = 'labelled'
    fields[#fields + 1] = 1
  end
  redis.call('HSET', t.prefix .. 'd', unpack(fields))
  add_entries(t.prefix .. 'p:all', t.sketch_length, 0, t.entries)
  if #t.series > 0 then
    local version = {'#', text(tonumber(t.version) + 1)}
    for _, series in ipairs(t.series) do
      version[#version + 1] = series[2]
      version[#version + 1] = series[1]
    end
    redis.call('HSET', t.prefix .. 's', unpack(version))
  end
  redis.call('ZADD', registry, 'GT', t.latest, t.name)
end

-- Store all, or nothing. Returns {1, keys of sketches to compact, type and hour by turns to fold}; {-2, type, …} if the series dictionaries of these
-- types have changed; {-3, free places for types, type, free places for its series, …} if a cap is in the way.
local function write_metrics(registry, first)
  taken = first - 1
  local max_types, max_series = tonumber(take()), tonumber(take())
  local types, stale, new_types = {}, {-2}, 0
  for i = 1, tonumber(take()) do
    local t = plan_type()
    types[i] = t
    if not redis.call('ZSCORE', registry, t.name) then
      new_types = new_types + 1
    end
    if t.is_stale then
      stale[#stale + 1] = t.name
    end
  end
  if #stale > 1 then
    return stale
  end
  local free, full = max_types - redis.call('ZCARD', registry), {-3}
  full[2] = new_types > free and free or -1
  for _, t in ipairs(types) do
    if #t.series > 0 and t.known_series + #t.series > max_series then
      full[#full + 1] = t.name
      full[#full + 1] = max_series - t.known_series
    end
  end
  if full[2] >= 0 or #full > 2 then
    return full
  end
  for _, t in ipairs(types) do
    write_type(registry, t)
  end
  return {1, hints, folds}
end
