-- Takes note of how a worker's line stands, gives its newcomers places and perhaps it a turn.
--
-- KEYS      those of queue.lua
-- ARGV      1 interval in µs, 2 capacity, 3 µs of grace, 4 µs between polls, 5 worker, 6 callers in its line,
--           7 newcomers, 8 age in µs of the one who came first, 9 lead in µs of the first by priority,
--           10 number of the last turn it knows of, 11 the policy it knows, 12 the longest wait in µs
-- reply     {newcomers admitted, 1 if it has a turn, number of the last turn, policy, µs to wait,
--           callers in all lines, 1 if newcomers are not admitted since their turns would come too late}
--
-- @include queue
local interval, capacity, grace, poll = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local max_wait = tonumber(ARGV[12])
local worker, size, newcomers = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local mine = {fifo = now - ARGV[8], priority = now - ARGV[9]}
local known_turn = tonumber(ARGV[10])

local policy = redis.call('HGET', PACE, 'policy')
if not policy then
  policy = ARGV[11]
  redis.call('HSET', PACE, 'policy', policy)
end

local turn = get('turn') or 0
local next_due = due_by_pace(interval)
if known_turn > turn then
  -- Redis has lost turns this worker knows of, and perhaps later ones: none was given later than now.
  turn, next_due = known_turn, now + interval
  redis.call('HSET', PACE, 'turn', whole(turn), 'next_us', whole(next_due), 'next_before_us', whole(next_due))
end
local not_before = postponed_until()
-- After the clock was set back, the interval and the delay begin again, once.
if next_due < (get('next_us') or next_due) then
  redis.call('HSET', PACE, 'next_us', whole(next_due))
end
if now < (get('postponed_us') or now) then
  redis.call('HSET', PACE, 'not_before_us', whole(not_before), 'postponed_us', whole(now))
end

redis.call('HDEL', LINES, worker)
local others, in_line, dead = live_lines(interval, grace)
if #dead > 0 then
  redis.call('HDEL', LINES, unpack(dead))
end

local function is_first()
  for other, line in pairs(others) do
    -- A worker that waits for a later turn, since this one was given back, does not know of it.
    local is_aware = line.due <= now
    if is_aware and (line[policy] < mine[policy] or line[policy] == mine[policy] and other < worker) then
      return false
    end
  end
  return true
end

local has_turn = size + newcomers > 0 and math.max(next_due, not_before) <= now and is_first()
local first_wait = math.max(has_turn and interval or 0, next_due - now, not_before - now)
local turns_in_time = math.max(math.floor((max_wait - first_wait) / interval) + 1, 0)
local waiting = in_line + (has_turn and math.max(size - 1, 0) or size)
local places = math.max(math.min(capacity, turns_in_time) - waiting, 0)
local takes_turn = has_turn and size == 0 and 1 or 0 -- and so no place
local admitted = math.min(places + takes_turn, newcomers)
if has_turn then
  turn = turn + 1
  size = size - 1
  redis.call('HSET', PACE, 'turn', whole(turn), 'next_us', whole(now + interval), 'next_before_us', whole(next_due))
  next_due = now + interval
end

size = size + admitted
local due = math.max(next_due, not_before)
if size > 0 then
  local expires = math.max(now, due) + grace
  local line = {whole(mine.fifo), whole(mine.priority), whole(size), whole(due), whole(expires)}
  redis.call('HSET', LINES, worker, table.concat(line, ' '))
end
local wait = due > now and due - now or poll
local is_late = turns_in_time < capacity and 1 or 0
return {admitted, has_turn and 1 or 0, turn, policy, wait, in_line + size, is_late}
