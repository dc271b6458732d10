-- What the paced queue's scripts share: when the next turn is due, and the lines of the workers.
-- The rules are those of src/resilience/paced_queue/store.py.
--
-- KEYS[1]  hash: policy, turn (number of the last one given), next_us (when the next one is due by the pace),
--          next_before_us (the same before the last one was given), not_before_us (postponed until),
--          postponed_us (when it was postponed)
-- KEYS[2]  hash: worker → 'arrived_us rank_us size due_us expires_us' of its line; the first two are of its
--          first callers, by arrival and by priority, and due_us is when the turn is due that it waits for
--
-- @include ../redis/now
local PACE, LINES = KEYS[1], KEYS[2]

-- A whole number as text: Lua's own way keeps 14 digits, too few for µs.
local function whole(number)
  return string.format('%.0f', number)
end

local function get(field)
  return tonumber(redis.call('HGET', PACE, field))
end

-- Returns when the next turn is due by the pace. A clock that was set back holds nobody up for longer than that.
local function due_by_pace(interval)
  return math.min(get('next_us') or now, now + interval)
end

-- Returns until when no turn is given because it was postponed; now or earlier where it is not. After the clock was
-- set back, that is as long as it was postponed for, and no longer.
local function postponed_until()
  local not_before = get('not_before_us') or now
  local postponed_for = not_before - (get('postponed_us') or now)
  return math.min(not_before, now + postponed_for)
end

-- Returns the lines that have not expired, by worker, the callers in them all, and whose lines have. No line expires
-- later than `grace` after the latest time that a turn may be due: one that does is from before the clock was set
-- back, and its worker asks again if it lives.
local function live_lines(interval, grace)
  local latest = math.max(now + interval, postponed_until()) + grace
  local lines, callers, dead = {}, 0, {}
  local found = redis.call('HGETALL', LINES)
  for i = 1, #found, 2 do
    local arrived, rank, size, due, expires = string.match(found[i + 1], '(%-?%d+) (%-?%d+) (%d+) (%d+) (%d+)')
    if tonumber(expires) > now and tonumber(expires) <= latest then
      lines[found[i]] = {fifo = tonumber(arrived), priority = tonumber(rank), due = tonumber(due)}
      callers = callers + size
    else
      dead[#dead + 1] = found[i]
    end
  end
  return lines, callers, dead
end
