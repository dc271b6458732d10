-- What the paced queue's scripts share: when the next turn is due, and the lines of the workers.
-- The rules are those of src/resilience/pace_store.py, which tells them.
--
-- KEYS[1]  hash: policy, turn (number of the last one given), next_us (when the next one is due by the pace),
--          next_before_us (the same before the last one was given), not_before_us (postponed until)
-- KEYS[2]  hash: worker → 'arrived_us rank_us size due_us expires_us' of its line; the first two are of its
--          first callers, by arrival and by priority, and due_us is when the turn is due that it waits for
local PACE, LINES = KEYS[1], KEYS[2]

local now = now_us()

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

-- Returns the lines that have not expired, by worker, the callers in them all, and whose lines have.
local function live_lines()
  local lines, callers, dead = {}, 0, {}
  local found = redis.call('HGETALL', LINES)
  for i = 1, #found, 2 do
    local arrived, rank, size, due, expires = string.match(found[i + 1], '(%-?%d+) (%-?%d+) (%d+) (%d+) (%d+)')
    if tonumber(expires) > now then
      lines[found[i]] = {fifo = tonumber(arrived), priority = tonumber(rank), due = tonumber(due)}
      callers = callers + size
    else
      dead[#dead + 1] = found[i]
    end
  end
  return lines, callers, dead
end
