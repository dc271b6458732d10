-- The shared part of the paced queue's scripts: when the next slot is due, and the offers of the workers.
-- src/resilience/paced_queue/store.py describes the rules.
--
-- KEYS[1]  hash: policy, slot (the number of the last assigned slot), next_us (when the next slot is due by the pace),
--          next_before_us (next_us before the last slot was assigned), not_before_us (no slot is due before this time),
--          postponed_us (when not_before_us was set)
-- KEYS[2]  hash: worker → 'arrived_us rank_us size due_us expires_us' of its offer: the arrival time of its earliest
--          caller, the lowest rank by priority, the number of its callers, the due time of the slot that it waits for,
--          and the time at which the offer expires
--
-- @include ../redis/now
local PACE, OFFERS = KEYS[1], KEYS[2]

-- Returns a whole number as text. tostring keeps only 14 digits, which is too few for µs.
local function whole(number)
  return string.format('%.0f', number)
end

local function get(field)
  return tonumber(redis.call('HGET', PACE, field))
end

-- Returns when the next slot is due by the pace. The result is at most one interval from now, even after the clock was
-- set back.
local function due_by_pace(interval)
  return math.min(get('next_us') or now, now + interval)
end

-- Returns the time until which slots are postponed, or a time up to now if they are not. After the clock was set back,
-- the result is at most the original delay from now.
local function postponed_until()
  local not_before = get('not_before_us') or now
  local delay = not_before - (get('postponed_us') or now)
  return math.min(not_before, now + delay)
end

-- Returns the offers that have not expired, by worker; the number of their callers; and the workers with expired offers.
-- No valid offer expires later than `grace` after the latest due time. An offer that does was made before the clock was
-- set back, and its worker makes a new offer if it is alive.
local function valid_offers(interval, grace)
  local latest = math.max(now + interval, postponed_until()) + grace
  local offers, callers, expired_workers = {}, 0, {}
  local stored = redis.call('HGETALL', OFFERS)
  for i = 1, #stored, 2 do
    local arrived, rank, size, due, expires = string.match(stored[i + 1], '(%-?%d+) (%-?%d+) (%d+) (%d+) (%d+)')
    if tonumber(expires) > now and tonumber(expires) <= latest then
      offers[stored[i]] = {fifo = tonumber(arrived), priority = tonumber(rank), due = tonumber(due)}
      callers = callers + size
    else
      expired_workers[#expired_workers + 1] = stored[i]
    end
  end
  return offers, callers, expired_workers
end
