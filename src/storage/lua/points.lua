-- Points of several types, stored with every rollup and sketch they belong to. The keys of a type,
-- m:{<type>}:<suffix>, are made here; all of them carry the type's hash tag.
--
-- Redis takes nothing back, so a write has two steps. `plan_points` reads and merges everything, and makes every
-- check: whatever fails there, such as a value of another kind or a command that the user may not run, leaves
-- nothing of the points behind. `store_points` writes what was planned.
--
-- needs `now.lua`
-- ARGV  from the place `first` on: retention in seconds (0: keep), number of types, and for each type
--         name, latest timestamp in µs, number of points
--         number of rollups, and for each       its places, "<suffix> <expiry> <field>" each; its record as
--                                                Rollup.encode writes it, arrival counted within the batch
--         number of sketches, and for each       its places, "<suffix> <expiry>" each; number of pages, and
--                                                for each its number, its content: src/analytics/sketch.py
--         number of hours, and for each          number of the hour, expiry, its points in order of arrival:
--                                                their µs within the hour, in 10 digits each, and their
--                                                values, as doubles of 8 bytes each
--       An expiry is Unix time in seconds, or - for never. What expires with its bucket is not written at
--       all when that is past.

local PAGE = 16 -- bins of which a sketch keeps the counts together
local CHUNK = 500 -- pairs of arguments in one call; Lua unpacks no more than some 8000 values

local taken = 0 -- of the arguments
local function take()
  taken = taken + 1
  return ARGV[taken]
end

local function is_past(expiry)
  return expiry and expiry * 1000000 <= now
end

-- What is planned.
local fields, planned = {}, 0 -- key, field, value, key, field, value, …; and how many words these are
local members = {} -- for each sorted set a list of its key, score, member, score, member, …
local latests = {} -- timestamp, type, timestamp, type, …
local lives = {} -- by key, the seconds that a key which is new has to live

local function plan_field(key, field, value)
  fields[planned + 1] = key
  fields[planned + 2] = field
  fields[planned + 3] = value
  planned = planned + 3
end

-- The expiry of a bucket follows from its end alone, so a late point does not renew it; a key that holds
-- several buckets lives as long as the last of them. Relative, to go by the same clock as the rest.
local expires = {}
local function plan_expiry(key, expiry)
  if expiry and expiry > (expires[key] or 0) then
    expires[key] = expiry
    local seconds = math.ceil(expiry - now / 1000000)
    -- Of a key that is new this does nothing yet, but it fails where it would fail later.
    if redis.call('TTL', key) < seconds and redis.call('EXPIRE', key, seconds) == 0 then
      lives[key] = seconds
    end
  end
end

-- Not every Lua takes "inf" and "nan" for numbers. Both come of a sum that overflowed.
local function number(text)
  return tonumber(text) or 0 / 0
end

local RECORD = '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$'

local function plan_rollups(prefix, arrivals)
  for _ = 1, tonumber(take()) do
    local places = take()
    local count, sum, lost, low, high, latest, arrival, value = take():match(RECORD)
    local b, b_lost, least, most = number(sum), number(lost), number(low), number(high)
    local newest = string.format('%s %.0f %s', latest, arrivals + arrival, value)

    -- What is only compared stays the text it was. Of equal timestamps the new one arrived later.
    local function merged(old)
      local count1, sum1, lost1, low1, high1, latest1, arrival1, value1 = old:match(RECORD)
      assert(count1, 'a foreign value stands in place of a rollup')
      local a = number(sum1)
      local total = a + b
      local rounding -- Neumaier: the smaller summand is the one that lost digits
      if math.abs(a) >= math.abs(b) then
        rounding = (a - total) + b
      else
        rounding = (b - total) + a
      end
      return string.format('%.0f %.17g %.17g %s %s %s', count1 + count, total,
        number(lost1) + b_lost + rounding,
        least < number(low1) and low or low1, most > number(high1) and high or high1,
        latest >= latest1 and newest or latest1 .. ' ' .. arrival1 .. ' ' .. value1)
    end

    for suffix, expiry, field in places:gmatch('(%S+) (%S+) (%S+)') do
      local key = prefix .. suffix
      expiry = tonumber(expiry)
      if not is_past(expiry) then
        local old = redis.call('HGET', key, field)
        plan_field(key, field, old and merged(old)
          or string.format('%s %s %s %s %s %s', count, sum, lost, low, high, newest))
        plan_expiry(key, expiry)
      end
    end
  end
end

-- A page has the lowest bytes of its counts, then the next ones, for as long as any count has more.
local function added(old, new)
  local sum, more = {old:byte(1, -1)}, {new:byte(1, -1)}
  for i = 1, #more do
    local digit, place = more[i], i
    while digit > 0 do
      while not sum[place] do
        for empty = #sum + 1, #sum + PAGE do
          sum[empty] = 0
        end
      end
      digit = digit + sum[place]
      sum[place] = digit % 256
      digit, place = digit > 255 and 1 or 0, place + PAGE
    end
  end
  return string.char(unpack(sum))
end

local function plan_sketches(prefix)
  for _ = 1, tonumber(take()) do
    local places, pages = take(), {}
    for place = 1, tonumber(take()) do
      pages[place] = {take(), take()}
    end
    for suffix, expiry in places:gmatch('(%S+) (%S+)') do
      local key = prefix .. suffix
      expiry = tonumber(expiry)
      if not is_past(expiry) then
        local is_known = false -- and expires already: always at the same time, unlike what retention keeps
        for _, page in ipairs(pages) do
          local old = redis.call('HGET', key, page[1])
          plan_field(key, page[1], old and added(old, page[2]) or page[2])
          is_known = is_known or old
        end
        if not is_known then
          plan_expiry(key, expiry)
        end
      end
    end
  end
end

-- A member is its arrival as 6 bytes, so that equal timestamps sort by it, and the 8 of its value.
local function plan_raw(key, offsets, values, arrival)
  local raw, size, head = {key}, 1, nil
  for i = 0, #values / 8 - 1 do
    arrival = arrival + 1
    local low = arrival % 256
    if not head or low == 0 then
      local high = math.floor(arrival / 256)
      head = string.char(math.floor(high / 4294967296) % 256, math.floor(high / 16777216) % 256,
        math.floor(high / 65536) % 256, math.floor(high / 256) % 256, high % 256)
    end
    raw[size + 1] = offsets:sub(10 * i + 1, 10 * i + 10)
    raw[size + 2] = head .. string.char(low) .. values:sub(8 * i + 1, 8 * i + 8)
    size = size + 2
  end
  members[#members + 1] = raw
  return arrival
end

local function plan_hours(prefix, arrival)
  local index = prefix .. 'hours'
  for _ = 1, tonumber(take()) do
    local hour, expiry, offsets, values = take(), tonumber(take()), take(), take()
    if is_past(expiry) then
      arrival = arrival + #values / 8
    else
      local key = prefix .. 'raw:' .. hour
      arrival = plan_raw(key, offsets, values, arrival)
      -- The index has every hour that has points.
      if redis.call('ZCARD', key) == 0 and not redis.call('ZSCORE', index, hour) then
        members[#members + 1] = {index, hour, hour}
      end
      plan_expiry(key, expiry)
      plan_expiry(index, expiry)
    end
  end
end

-- Partitions expire by themselves; what lists them does not. Some at a time: there may be years of them.
local function prune(prefix, retention)
  local cutoff = now / 1000000 - retention
  local hours, last = prefix .. 'hours', '(' .. math.floor(cutoff / 3600)
  local expired = redis.call('ZRANGEBYSCORE', hours, '-inf', last, 'LIMIT', 0, CHUNK)
  if #expired > 0 then
    redis.call('ZREM', hours, unpack(expired))
    for _, day in ipairs(redis.call('HKEYS', prefix .. 'd')) do
      if tonumber(day) < math.floor(cutoff / 86400) then
        redis.call('HDEL', prefix .. 'd', day)
      end
    end
  end
end

local registry

-- Plan to store them; `types` is a sorted set of type names by latest timestamp. The only writes are such as make
-- no difference to what is stored: numbers of arrival that no point gets, and the end of what has expired.
local function plan_points(types, first)
  registry = types
  redis.call('ZADD', registry, 'XX', 0, '') -- changes nothing, but fails where types could not be added
  taken = first - 1
  local retention = tonumber(take())
  for _ = 1, tonumber(take()) do
    local name, latest, points = take(), take(), take()
    local prefix = 'm:{' .. name .. '}:'
    if retention > 0 then
      prune(prefix, retention)
    end
    local arrivals = redis.call('INCRBY', prefix .. 'seq', points) - points
    plan_rollups(prefix, arrivals)
    plan_sketches(prefix)
    plan_hours(prefix, arrivals)
    latests[#latests + 1] = latest
    latests[#latests + 1] = name
  end
end

local has_written = false

-- HSET comes first, as no check has proved that the user may run it; the record last: where it is, everything is.
local function write_all(record_key, record, life)
  for place = 1, planned, 3 do
    redis.call('HSET', fields[place], fields[place + 1], fields[place + 2])
    has_written = true
  end
  for _, set in ipairs(members) do
    for place = 2, #set, 2 * CHUNK do
      redis.call('ZADD', set[1], unpack(set, place, math.min(place + 2 * CHUNK - 1, #set)))
    end
  end
  for place = 1, #latests, 2 * CHUNK do
    redis.call('ZADD', registry, 'GT', unpack(latests, place, math.min(place + 2 * CHUNK - 1, #latests)))
  end
  for key, seconds in pairs(lives) do
    redis.call('EXPIRE', key, seconds)
  end
  if record_key then
    redis.call('SET', record_key, record, 'EX', life)
  end
end

-- Write what was planned, and a record of the write where there is a key for it. Return nothing where that is done;
-- the reason, where Redis refused after something was written, which no check has foreseen: then it is not known
-- what is stored.
local function store_points(record_key, record, life)
  local is_done, failure = pcall(write_all, record_key, record, life)
  if is_done then
    return nil
  elseif not has_written then
    error(failure)
  end
  return type(failure) == 'table' and failure.err or failure
end
