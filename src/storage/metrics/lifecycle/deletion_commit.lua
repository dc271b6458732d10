-- Removes points of some hours from all data of a type, in one step: from strings of points, rollups, sketches, blocks
-- of series and indexes. The totals of days and of all time are merged again from the remaining data.
--
-- @include ../metrics_record
-- @include deletion_lease
-- KEYS  types; m:{<type>}:x, the lease; the script builds the other keys of the type, with the same hash tag
-- ARGV  token of the lease, its length in ms, name of the type, prefix of its keys; number of sketches, and for each its
--       key without the prefix, its beginning as it was read ('' if it did not exist), what replaces the beginning;
--       number of hours that lose all points, and for each its number and its record as it was read; and, if another
--       hour loses some points: its number, version of its block of series that was read, the new block or '', number
--       of points that the new block has, bytes of the head that were read, record of what remains of them or '',
--       number of changed strings, and for each its minute (-1: the head), bytes that were read, bytes that were put
--       aside, record of these points or ''
-- Reply 1 done, 2 done, and the type has no points any more, 0 something has changed since it was read, -1 the lease is
--       lost
local MAX_ADDED = 100000 * POINT -- bytes of points that may have been added since an hour was read

local place = 4
local function take()
  place = place + 1
  return ARGV[place]
end

local name, prefix = ARGV[3], ARGV[4]

local function key_of(hour)
  return prefix .. 'r:' .. hour
end

-- The part of the string at `minute` of an hour, -1 for its head.
local function part_key(hour, minute)
  return minute == -1 and key_of(hour) or key_of(hour) .. ':' .. minute
end

local function part_stage(minute)
  return prefix .. 'w:' .. minute
end

-- Return the rollup record of points, or ''.
local function rollup_of(points, hour)
  local count, sum, lost, low, high, latest, latest_value = 0, 0, 0, math.huge, -math.huge, -1, 0
  for at = 1, #points, POINT do
    local offset, _, value = struct.unpack('<IHd', points, at)
    local total = sum + value
    if math.abs(sum) >= math.abs(value) then
      lost = lost + ((sum - total) + value)
    else
      lost = lost + ((value - total) + sum)
    end
    count, sum = count + 1, total
    low, high = math.min(low, value), math.max(high, value)
    if offset >= latest then
      latest, latest_value = offset, value
    end
  end
  return count > 0 and struct.pack(FORMAT, count, sum, lost, low, high, latest_value, hour, latest) or ''
end

local function both(old, new)
  if is_empty(new) then
    return old
  end
  return merge_into(old, new)
end

-- ---------------------------------------------------------------- reading and checks

local function read_sketches()
  local sketches = {}
  for i = 1, tonumber(take()) do
    local sketch = {key = prefix .. take(), beginning = take(), replacement = take()}
    sketch.value = redis.call('GET', sketch.key) or ''
    if sketch.value:sub(1, #sketch.beginning) ~= sketch.beginning or sketch.beginning == '' and sketch.value ~= '' then
      return nil
    end
    sketches[i] = sketch
  end
  return sketches
end

local slots = {} -- the records of the hours of each day

local function slots_of(day)
  slots[day] = slots[day] or redis.call('GET', prefix .. 'h:' .. day) or ''
  return slots[day]
end

local function slot_of(hour)
  local first = hour % 24 * RECORD
  return slots_of(math.floor(hour / 24)):sub(first + 1, first + RECORD)
end

local function set_slot(hour, record)
  local day, first = math.floor(hour / 24), hour % 24 * RECORD
  local before = slots_of(day)
  before = before .. string.rep('\0', first - #before)
  record = record == '' and string.rep('\0', RECORD) or record
  slots[day] = before:sub(1, first) .. record .. before:sub(first + RECORD + 1)
end

local function read_lost_hours()
  local hours = {}
  for i = 1, tonumber(take()) do
    hours[i] = {number = tonumber(take())}
    local slot, record = slot_of(hours[i].number), take()
    if slot ~= record and not (is_empty(slot) and is_empty(record)) then
      return nil
    end
    set_slot(hours[i].number, '')
  end
  return hours
end

local function version_of(key)
  local head = redis.call('GETRANGE', key, 0, 3)
  return #head == 4 and struct.unpack('<I', head) or 0
end

local function read_part(hour, minute, length, kept)
  local key = part_key(hour.number, minute)
  local part = {minute = minute, key = key, kept = kept}
  if redis.call('STRLEN', key) - length > MAX_ADDED or kept > 0 and redis.call('STRLEN', part_stage(minute)) ~= kept then
    return nil
  end
  part.added = redis.call('GETRANGE', key, length, -1)
  return part
end

local function read_changed_hour()
  local hour = {number = tonumber(take()), version = tonumber(take()), block = take(), covered = tonumber(take()),
    parts = {}}
  local head_length, record = tonumber(take()), take()
  if version_of(prefix .. 'q:' .. hour.number) ~= hour.version then
    return nil
  end
  local head = read_part(hour, -1, head_length, 0)
  if not head then
    return nil
  end
  record = both(record, rollup_of(head.added, hour.number))
  hour.records = redis.call('GET', prefix .. 'n:' .. hour.number) or ''
  for i = 1, tonumber(take()) do
    local part = read_part(hour, tonumber(take()), tonumber(take()), tonumber(take()))
    local kept = take()
    if not part then
      return nil
    end
    hour.parts[i] = part
    if part.minute ~= -1 then
      local first = part.minute * RECORD
      kept = both(kept, rollup_of(part.added, hour.number))
      kept = kept == '' and string.rep('\0', RECORD) or kept
      hour.records = hour.records:sub(1, first) .. kept .. hour.records:sub(first + RECORD + 1)
    end
  end
  for first = 1, #hour.records, RECORD do
    record = both(record, hour.records:sub(first, first + RECORD - 1))
  end
  hour.count = count_of(record)
  set_slot(hour.number, record)
  return hour
end

-- Redis has no command that returns the permissions for another command. These commands change nothing, but they fail if
-- the user may not run them.
local function check_commands()
  local none = prefix .. 'none'
  redis.call('UNLINK', none)
  redis.call('PERSIST', none)
  redis.call('HDEL', none, '')
  redis.call('ZREM', KEYS[1], '')
  local _, failure = pcall(redis.call, 'RENAME', none, none)
  failure = type(failure) == 'table' and failure.err or tostring(failure)
  if not failure:find('no such key') then
    error(failure)
  end
  redis.call('SET', none, '', 'XX')
  redis.call('SETRANGE', none, 0, '')
  redis.call('ZADD', KEYS[1], 'XX', 0, '')
end

-- ---------------------------------------------------------------- writing

local function remove_hour(hour)
  local records = redis.call('GET', prefix .. 'n:' .. hour) or ''
  local keys = {key_of(hour), prefix .. 'n:' .. hour, prefix .. 'p:h:' .. hour, prefix .. 'q:' .. hour}
  for minute = 0, #records / RECORD - 1 do
    keys[#keys + 1] = part_key(hour, minute)
    keys[#keys + 1] = prefix .. 'p:m:' .. hour * 60 + minute
  end
  redis.call('UNLINK', unpack(keys))
  redis.call('ZREM', prefix .. 'hours', hour)
  redis.call('HDEL', prefix .. 'u', hour)
end

local function write_sketches(sketches)
  for _, sketch in ipairs(sketches) do
    local value = sketch.replacement .. sketch.value:sub(#sketch.beginning + 1)
    if #value > SKETCH_HEADER then
      redis.call('SET', sketch.key, value, 'KEEPTTL')
    elseif value ~= '' then
      redis.call('UNLINK', sketch.key)
    end
  end
end

local function write_changed_hour(hour, is_labelled)
  for _, part in ipairs(hour.parts) do
    redis.call('UNLINK', part.key)
    if part.kept > 0 then
      redis.call('RENAME', part_stage(part.minute), part.key)
      redis.call('PERSIST', part.key)
    end
    if part.added ~= '' then
      redis.call('SETRANGE', part.key, part.kept, part.added)
    end
  end
  if hour.count == 0 then
    remove_hour(hour.number)
    return
  end
  if hour.records ~= '' then
    redis.call('SET', prefix .. 'n:' .. hour.number, hour.records)
  end
  if not is_labelled then
    return
  end
  if hour.block == '' then
    redis.call('UNLINK', prefix .. 'q:' .. hour.number)
  else
    redis.call('SET', prefix .. 'q:' .. hour.number, hour.block)
  end
  if hour.count > hour.covered then
    redis.call('HSET', prefix .. 'u', hour.number, text(hour.count - hour.covered))
  else
    redis.call('HDEL', prefix .. 'u', hour.number)
  end
end

-- Return the record of each changed day, and of all time, as they are without the removed points.
local function merged_totals()
  local days, total = {}, ''
  for day, records in pairs(slots) do
    days[day] = ''
    for first = 1, #records, RECORD do
      days[day] = both(days[day], records:sub(first, first + RECORD - 1))
    end
    total = both(total, days[day])
  end
  local fields = redis.call('HGETALL', prefix .. 'd')
  for i = 1, #fields, 2 do
    local day = tonumber(fields[i])
    if day and not days[day] then
      total = both(total, read_record(fields[i + 1]))
    end
  end
  return days, total
end

local function remove_type()
  local keys = {}
  for _, suffix in ipairs({'d', 's', 'u', 'x', 'hours', 'p:all', 'q:all'}) do
    keys[#keys + 1] = prefix .. suffix
  end
  for minute = -1, 59 do
    keys[#keys + 1] = part_stage(minute)
  end
  redis.call('UNLINK', unpack(keys))
  redis.call('ZREM', KEYS[1], name)
end

-- HSET comes first of all, because no check has proved that the user may run it.
local function write_totals(days, total)
  if total == '' then
    return
  end
  local fields = {'all', total, 'generation', unique()}
  for day, record in pairs(days) do
    if record ~= '' then
      fields[#fields + 1] = day
      fields[#fields + 1] = record
    end
  end
  redis.call('HSET', prefix .. 'd', unpack(fields))
end

local function write_days(days, total, is_labelled)
  for day, record in pairs(days) do
    if record == '' then
      redis.call('UNLINK', prefix .. 'h:' .. day, prefix .. 'p:d:' .. day)
      redis.call('HDEL', prefix .. 'd', day)
    else
      redis.call('SET', prefix .. 'h:' .. day, slots[day])
    end
  end
  if total == '' then
    remove_type()
    return 2
  end
  if is_labelled then -- only a version: the block has to be merged again
    redis.call('SET', prefix .. 'q:all', struct.pack('<I', version_of(prefix .. 'q:all') + 1))
  end
  local _, _, _, _, _, _, hour, offset = struct.unpack(FORMAT, total)
  redis.call('ZADD', KEYS[1], text(hour * 3600000000 + offset), name)
  return 1
end

if not holds_lease(KEYS[2], ARGV[1], ARGV[2]) then
  return -1
end
local sketches = read_sketches()
local lost = sketches and read_lost_hours()
if not lost then
  return 0
end
local changed
if ARGV[place + 1] then
  changed = read_changed_hour()
  if not changed then
    return 0
  end
end
local is_labelled = redis.call('HEXISTS', prefix .. 'd', 'labelled') == 1
local days, total = merged_totals()
check_commands()
write_totals(days, total)
write_sketches(sketches)
for _, hour in ipairs(lost) do
  remove_hour(hour.number)
end
if changed then
  write_changed_hour(changed, is_labelled)
end
return write_days(days, total, is_labelled)
