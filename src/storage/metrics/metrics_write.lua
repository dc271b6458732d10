-- Stores points of several types. The script makes the keys of a type, m:{<type>}:<suffix>, itself; all of them carry
-- the type's hash tag. `src/storage/metrics/layout.py` describes the keys.
--
-- Redis does not roll back, so a write has two steps. `plan_metrics` reads everything and makes every check. A failure
-- there, such as a value of another kind or a command that the user may not run, leaves everything as it was.
-- `store_metrics` writes what was planned.
--
-- @include ../../resilience/redis/now
-- @include metrics_record
-- ARGV  from `first` on: maximum number of types, maximum number of series of a type, number of types; and for
--       each type its name; latest timestamp in µs; version of the series
--       dictionary ('' if only points without labels come); number of new series, and for each its number and
--       text; sketch entries of all its points ('' if they are those of its only minute); number of minutes in
--       ascending order, and for each its number, points, rollup record, sketch entries

local HEAD = 1024       -- points of an hour that are kept in its head
local HOUR_SKETCH = 64  -- points of an hour before it has a sketch
local MINUTE_SKETCH = 512
local RECENT = 26 * 3600 -- seconds after their end that minutes have a sketch
local MAX_LOG = 8192    -- bytes of entries beyond the compacted part before it is compacted
local MAX_NEW_LOG = 2048 -- the same of a new sketch: so much at once is often all that it will have
local FOLD_POINTS = 50000 -- of an hour that no block of series has yet before they are added to one
local MAX_FOLDS = 20    -- hours reported at once
local MAX_HOURS = 500   -- hours of a type without labels that its first write with labels notes by itself
local FIELDS_AT_ONCE = 1000 -- names and values of a hash that one command sets; an even number

local hints = {} -- keys of sketches whose log is to be compacted
local folds = {} -- types and hours in turn, whose points are to be added to blocks of series

local taken = 0
local function take()
  taken = taken + 1
  return ARGV[taken]
end

local function read_slot(key, slot)
  return read_record(redis.call('GETRANGE', key, slot, slot + RECORD - 1))
end

local function read_number(value)
  return assert(tonumber(value), 'a foreign value stands in place of a number')
end

local function points_length(key)
  local length = redis.call('STRLEN', key)
  assert(length % POINT == 0, 'a foreign value stands in place of points')
  return length
end

local function check_sketch(length)
  assert(length == 0 or length >= SKETCH_HEADER and length % 4 == 0, 'a foreign value stands in place of a sketch')
  return length
end

local function sketch_length(key)
  return check_sketch(redis.call('STRLEN', key))
end

-- The tables of hours, days, minutes and types get all members at once: Lua takes longer to add them one by one.

local function take_minute()
  local name = take()
  return {name = name, number = tonumber(name), points = take(), rollup = take(), entries = take(), count = 0, slot = 0,
    record = false, key = '', sketch_key = '', length = 0, sketch_length = 0, begins_sketch = false}
end

local function new_hour(t, number)
  local name, day = tostring(number), tostring(math.floor(number / 24))
  return {number = number, day = day, count = 0, minutes = {}, rollup = false, entries = false,
    key = t.prefix .. 'r:' .. name, minutes_key = t.prefix .. 'n:' .. name, sketch_key = t.prefix .. 'p:h:' .. name,
    slot_key = t.prefix .. 'h:' .. day, slot = number % 24 * RECORD, length = 0, record = false, before = 0,
    sketch_length = 0, is_in_head = false}
end

local function take_hours(t)
  local hours, hour = {}, nil
  for _ = 1, tonumber(take()) do
    local minute = take_minute()
    local number = math.floor(minute.number / 60)
    if not hour or hour.number ~= number then
      hour = new_hour(t, number)
      hours[#hours + 1] = hour
    end
    minute.count = #minute.points / POINT
    hour.minutes[#hour.minutes + 1] = minute
    hour.count = hour.count + minute.count
    hour.rollup = hour.rollup and merged(hour.rollup, minute.rollup) or minute.rollup
    hour.entries = hour.entries and hour.entries .. minute.entries or minute.entries
  end
  return hours
end

local function plan_hour(t, hour)
  local first = hour.minutes[1]
  first.slot = first.number % 60 * RECORD
  first.record = read_slot(hour.minutes_key, first.slot)
  local is_closed = first.record ~= '' or redis.call('EXISTS', hour.minutes_key) == 1
  hour.length = is_closed and 0 or points_length(hour.key)
  hour.record = read_slot(hour.slot_key, hour.slot)
  hour.before = count_of(hour.record)
  hour.sketch_length = sketch_length(hour.sketch_key)
  if hour.before == 0 then
    redis.call('ZSCORE', t.prefix .. 'hours', hour.number)
  end
  if t.is_labelled then
    local unfolded = redis.call('HGET', t.prefix .. 'u', hour.number)
    hour.unfolded = unfolded and read_number(unfolded)
  end
  hour.is_in_head = not is_closed and hour.length + hour.count * POINT <= HEAD * POINT
  if not hour.is_in_head then
    for _, minute in ipairs(hour.minutes) do
      local place = minute.number % 60
      minute.key = hour.key .. ':' .. place
      minute.sketch_key = t.prefix .. 'p:m:' .. minute.name
      minute.slot = place * RECORD
      minute.record = minute.record or is_closed and read_slot(hour.minutes_key, minute.slot)
      minute.length = points_length(minute.key)
      minute.sketch_length = sketch_length(minute.sketch_key)
      minute.begins_sketch = minute.sketch_length == 0 and minute.length + minute.count * POINT >= MINUTE_SKETCH * POINT
      if minute.begins_sketch then
        redis.call('EXPIRE', minute.sketch_key, 1) -- there is no such key, but it fails if the user may not run EXPIRE
      end
    end
  end
end

local function plan_days(t, all_entries, first_record)
  local day
  for _, hour in ipairs(t.hours) do
    if not day or day.number ~= hour.day then
      local key, record = t.prefix .. 'p:d:' .. hour.day, first_record
      if day then
        record = read_record(redis.call('HGET', t.prefix .. 'd', hour.day))
      end
      day = {number = hour.day, key = key, record = record, sketch_length = sketch_length(key), rollup = false,
        entries = false}
      t.days[#t.days + 1] = day
    end
    day.rollup = day.rollup and merged(day.rollup, hour.rollup) or hour.rollup
    day.entries = day.entries and day.entries .. hour.entries or hour.entries
  end
  for _, each in ipairs(t.days) do
    t.rollup = t.rollup and merged(t.rollup, each.rollup) or each.rollup
  end
  t.entries = all_entries ~= '' and all_entries or t.days[1].entries
  if #t.days == 1 then
    t.days[1].entries = t.entries
  end
end

-- Find the earlier hours with points that no block of series has yet. If no point had labels before, these are all
-- hours, because their points belong to the series without labels; if they are many, series_prepare.lua notes them
-- first. Otherwise only a write that begins a new hour needs some of them.
local function plan_unfolded(t)
  t.unfolded = {}
  if not t.was_labelled then
    redis.call('HLEN', t.prefix .. 'u') -- fails if there is another kind of value
    if not t.is_folded then
      return
    end
    if t.is_preparing or redis.call('ZCARD', t.prefix .. 'hours') > MAX_HOURS then
      t.is_unprepared = true
      return
    end
    for i, hour in ipairs(redis.call('ZRANGE', t.prefix .. 'hours', 0, -1)) do
      local number = read_number(hour)
      local record = read_slot(t.prefix .. 'h:' .. math.floor(number / 24), number % 24 * RECORD)
      t.unfolded[i] = {number = number, count = count_of(record)}
    end
  elseif t.open and math.floor(t.open / 60) < t.hours[#t.hours].number then
    for i, hour in ipairs(redis.call('HRANDFIELD', t.prefix .. 'u', MAX_FOLDS) or {}) do
      t.unfolded[i] = {number = read_number(hour)}
    end
  end
end

local function plan_type()
  local t = {name = take(), latest = take(), version = take(), series = {}, prefix = '', hours = false, days = {},
    record = false, rollup = false, entries = '', sketch_length = 0, open = false, was_labelled = false,
    is_preparing = false, is_folded = false, is_labelled = false, is_stale = false, known_series = 0, unique = false,
    registered = false}
  t.prefix = 'm:{' .. t.name .. '}:'
  for i = 1, tonumber(take()) do
    t.series[i] = {take(), take()}
  end
  local all_entries = take()
  t.hours = take_hours(t)
  local totals = redis.call('HMGET', t.prefix .. 'd', 'all', 'open', 'labelled', 'preparing', t.hours[1].day)
  t.record = read_record(totals[1])
  t.open = totals[2] and read_number(totals[2])
  t.was_labelled = totals[3] and true
  t.is_preparing = totals[4] and true
  t.is_folded = t.was_labelled or t.version ~= ''
  t.is_labelled = t.is_folded or t.is_preparing
  -- Writes nothing and returns the length, but fails if the user may not run SETRANGE.
  t.sketch_length = check_sketch(redis.call('SETRANGE', t.prefix .. 'p:all', 0, ''))
  if t.version ~= '' then
    t.is_stale = (redis.call('HGET', t.prefix .. 's', '#') or '0') ~= t.version
    t.known_series = redis.call('HLEN', t.prefix .. 's') - (t.version ~= '0' and 1 or 0)
  end
  if not t.record or t.version == '0' then
    t.unique = unique()
  end
  for _, hour in ipairs(t.hours) do
    plan_hour(t, hour)
  end
  plan_days(t, all_entries, read_record(totals[5]))
  if t.is_labelled then
    plan_unfolded(t)
  end
  return t
end

-- ---------------------------------------------------------------- writing

local has_written = false

-- Add entries to a sketch. `length` is its length before, `left_out` the number of earlier points that a new
-- sketch leaves out, `expires` the second at which a new sketch expires; nil is never.
local function add_entries(key, length, left_out, entries, expires)
  if length == 0 then
    redis.call('SETRANGE', key, 0, struct.pack('<II', left_out, 0) .. entries)
    if expires then
      redis.call('EXPIRE', key, math.max(1, math.ceil(expires - now / 1000000)))
    end
    if #entries > MAX_NEW_LOG then
      hints[#hints + 1] = key
    end
    return
  end
  local log = redis.call('SETRANGE', key, length, entries) - SKETCH_HEADER
  if log > MAX_LOG and log - struct.unpack('<I', redis.call('GETRANGE', key, 4, 7)) > MAX_LOG then
    hints[#hints + 1] = key
  end
end

-- Write a string again, so that Redis frees the room that the string kept for growth.
local function trim(key)
  local value = redis.call('GET', key)
  if value then
    redis.call('SET', key, value, 'KEEPTTL')
  end
end

local function seal(t, minute)
  local hour = math.floor(minute / 60)
  pcall(trim, t.prefix .. 'r:' .. hour)
  pcall(trim, t.prefix .. 'r:' .. hour .. ':' .. minute % 60)
  for _, key in ipairs({t.prefix .. 'p:m:' .. minute, t.prefix .. 'p:h:' .. hour}) do
    if redis.call('EXISTS', key) == 1 then
      hints[#hints + 1] = key
    end
  end
end

local function report_fold(t, hour)
  if t.is_folded and #folds < 2 * MAX_FOLDS then
    folds[#folds + 1] = t.name
    folds[#folds + 1] = tonumber(hour)
  end
end

local function write_minute(hour, minute)
  redis.call('SETRANGE', hour.minutes_key, minute.slot, merge_into(minute.record, minute.rollup))
  redis.call('SETRANGE', minute.key, minute.length, minute.points)
  if minute.sketch_length > 0 or minute.begins_sketch then
    local expires = (minute.number + 1) * 60 + RECENT
    if expires * 1000000 > now then
      add_entries(minute.sketch_key, minute.sketch_length, minute.length / POINT, minute.entries, expires)
    end
  end
end

-- Returns the newest minute that was written.
local function write_hour(t, hour)
  if hour.before == 0 then
    redis.call('ZADD', t.prefix .. 'hours', hour.number, hour.number)
  end
  redis.call('SETRANGE', hour.slot_key, hour.slot, merge_into(hour.record, hour.rollup))
  if hour.sketch_length > 0 or hour.before + hour.count >= HOUR_SKETCH then
    add_entries(hour.sketch_key, hour.sketch_length, hour.before, hour.entries)
  end
  if hour.is_in_head then
    local length = hour.length
    for _, minute in ipairs(hour.minutes) do
      length = redis.call('SETRANGE', hour.key, length, minute.points)
    end
    return hour.number * 60
  end
  for _, minute in ipairs(hour.minutes) do
    write_minute(hour, minute)
  end
  return hour.minutes[#hour.minutes].number
end

-- Set the fields of a hash. `unpack` returns a few thousand values at most, so long lists are set in parts.
local function set_fields(key, fields)
  for first = 1, #fields, FIELDS_AT_ONCE do
    redis.call('HSET', key, unpack(fields, first, math.min(first + FIELDS_AT_ONCE - 1, #fields)))
    has_written = true
  end
end

-- HSET comes first, because no check has proved that the user may run it.
local function write_totals(t)
  local fields = {'all', merge_into(t.record, t.rollup)}
  for _, day in ipairs(t.days) do
    fields[#fields + 1] = day.number
    fields[#fields + 1] = merge_into(day.record, day.rollup)
  end
  if not t.record then
    fields[#fields + 1] = 'generation'
    fields[#fields + 1] = t.unique
  end
  if t.is_folded and not t.was_labelled then
    fields[#fields + 1] = 'labelled'
    fields[#fields + 1] = 1
  end
  set_fields(t.prefix .. 'd', fields)
end

-- Note which hours have points that no block of series has yet.
local function write_unfolded(t)
  if not t.was_labelled then
    for _, hour in ipairs(t.unfolded) do
      redis.call('HSET', t.prefix .. 'u', hour.number, text(hour.count))
    end
  end
  for _, hour in ipairs(t.hours) do
    local unfolded = (t.was_labelled and (hour.unfolded or 0) or hour.before) + hour.count
    redis.call('HSET', t.prefix .. 'u', hour.number, text(unfolded))
    if not hour.unfolded and hour.before == 0 then
      t.unfolded[#t.unfolded + 1] = hour
    end
    if unfolded > FOLD_POINTS then
      report_fold(t, hour.number)
    end
  end
end

local function write_series(t)
  local fields = {'#', t.version == '0' and t.unique or text(tonumber(t.version) + 1)}
  for _, series in ipairs(t.series) do
    fields[#fields + 1] = series[2]
    fields[#fields + 1] = series[1]
  end
  set_fields(t.prefix .. 's', fields)
end

-- Begin a new minute. The strings of the previous minute rarely grow after that.
local function open_minute(t, newest)
  if t.open then
    seal(t, t.open)
    if t.is_labelled and math.floor(t.open / 60) < math.floor(newest / 60) then
      for _, hour in ipairs(t.unfolded) do
        if hour.number < math.floor(newest / 60) then
          report_fold(t, hour.number)
        end
      end
    end
  end
  redis.call('HSET', t.prefix .. 'd', 'open', text(newest))
end

local function write_type(registry, t)
  if t.is_labelled then
    write_unfolded(t)
  end
  local newest
  for _, hour in ipairs(t.hours) do
    newest = write_hour(t, hour)
  end
  for _, day in ipairs(t.days) do
    add_entries(day.key, day.sketch_length, 0, day.entries)
  end
  add_entries(t.prefix .. 'p:all', t.sketch_length, 0, t.entries)
  if #t.series > 0 then
    write_series(t)
  end
  if not t.open or newest > t.open then
    open_minute(t, newest)
  end
  if not t.registered or tonumber(t.latest) > tonumber(t.registered) then
    redis.call('ZADD', registry, t.latest, t.name)
  end
end

local function write_all(registry, types, record_key, record, life)
  for _, t in ipairs(types) do
    write_totals(t)
  end
  for _, t in ipairs(types) do
    write_type(registry, t)
  end
  if record_key then -- last: if the record is there, everything is
    redis.call('SET', record_key, record, 'EX', life)
  end
end

-- ---------------------------------------------------------------- both steps

-- Plan to store everything. Returns the types to store; or nil and a reply: {-2, type, …} if the series dictionaries of
-- these types have changed; {-5, type, …} if series_prepare.lua has to prepare these types for their first labels; {-3,
-- free places for types or -1, type, free places for its series, …} if a cap is in the way.
local function plan_metrics(registry, first)
  taken = first - 1
  local max_types, max_series = tonumber(take()), tonumber(take())
  local types, stale, unprepared, new_types = {}, {-2}, {-5}, 0
  for i = 1, tonumber(take()) do
    local t = plan_type()
    types[i] = t
    -- Changes nothing, and returns the score of a type that is there. It fails if types could not be added.
    t.registered = redis.call('ZADD', registry, 'XX', 'INCR', 0, t.name)
    if not t.registered then
      new_types = new_types + 1
    end
    if t.is_stale then
      stale[#stale + 1] = t.name
    end
    if t.is_unprepared then
      unprepared[#unprepared + 1] = t.name
    end
  end
  for _, reply in ipairs({stale, unprepared}) do
    if #reply > 1 then
      return nil, reply
    end
  end
  local full = {-3, -1}
  if new_types > 0 then
    local free = max_types - redis.call('ZCARD', registry)
    full[2] = new_types > free and free or -1
  end
  for _, t in ipairs(types) do
    if #t.series > 0 and t.known_series + #t.series > max_series then
      full[#full + 1] = t.name
      full[#full + 1] = max_series - t.known_series
    end
  end
  if full[2] >= 0 or #full > 2 then
    return nil, full
  end
  return types
end

-- Write what was planned, and a record of the write if there is a key for it. Returns {1, keys of sketches to compact,
-- type and hour by turns to fold}; or {-4, reason} if Redis refused after the first change, for a reason that no check
-- covers. Then it is not known what is stored.
local function store_metrics(registry, types, record_key, record, life)
  local is_done, failure = pcall(write_all, registry, types, record_key, record, life)
  if is_done then
    return {1, hints, folds}
  elseif not has_written then
    error(failure)
  end
  return {-4, type(failure) == 'table' and failure.err or failure}
end
