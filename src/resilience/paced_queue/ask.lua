-- Records the offer of a worker, admits its newcomers to the queue, and assigns a slot to the worker if it is next.
--
-- KEYS      those of queue.lua
-- ARGV      1 interval in µs, 2 capacity, 3 grace period in µs, 4 µs between two offers of a worker that is not next,
--           5 worker, 6 its callers in the queue, 7 its newcomers, 8 µs since the arrival of its earliest caller,
--           9 lead in µs of its first caller by priority, 10 number of the last slot that it got, 11 its policy,
--           12 longest wait in µs
-- Reply     {newcomers admitted, 1 if a slot was assigned, number of the last slot, policy, µs until the next offer,
--           callers in the queue over all workers, 1 if newcomers are refused because their slots would come too late}
--
-- @include queue
local interval, capacity, grace, poll = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local max_wait = tonumber(ARGV[12])
local worker, size, newcomers = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local ranks = {fifo = now - ARGV[8], priority = now - ARGV[9]}
local known_slot = tonumber(ARGV[10])

local policy = redis.call('HGET', PACE, 'policy')
if not policy then
  policy = ARGV[11]
  redis.call('HSET', PACE, 'policy', policy)
end

local last_slot = get('slot') or 0
local next_due = due_by_pace(interval)
if known_slot > last_slot then
  -- Redis has lost its data. Slots may have been assigned up to now, so that the next one is due after an interval.
  last_slot, next_due = known_slot, now + interval
  redis.call('HSET', PACE, 'slot', whole(last_slot), 'next_us', whole(next_due), 'next_before_us', whole(next_due))
end
local not_before = postponed_until()
-- After the clock was set back, the interval and the delay begin again.
if next_due < (get('next_us') or next_due) then
  redis.call('HSET', PACE, 'next_us', whole(next_due))
end
if now < (get('postponed_us') or now) then
  redis.call('HSET', PACE, 'not_before_us', whole(not_before), 'postponed_us', whole(now))
end

redis.call('HDEL', OFFERS, worker)
local other_offers, other_callers, expired_workers = valid_offers(interval, grace)
if #expired_workers > 0 then
  redis.call('HDEL', OFFERS, unpack(expired_workers))
end

local function is_next()
  for other, offer in pairs(other_offers) do
    -- An offer for a later slot does not count: this slot was given back, and its worker does not expect it yet.
    local is_current = offer.due <= now
    if is_current and (offer[policy] < ranks[policy] or offer[policy] == ranks[policy] and other < worker) then
      return false
    end
  end
  return true
end

local gets_slot = size + newcomers > 0 and math.max(next_due, not_before) <= now and is_next()
local first_wait = math.max(gets_slot and interval or 0, next_due - now, not_before - now)
local slots_in_time = math.max(math.floor((max_wait - first_wait) / interval) + 1, 0)
local waiting = other_callers + (gets_slot and math.max(size - 1, 0) or size)
local places = math.max(math.min(capacity, slots_in_time) - waiting, 0)
local uses_slot = gets_slot and size == 0 and 1 or 0 -- the caller of this slot needs no place in the queue
local admitted = math.min(places + uses_slot, newcomers)
if gets_slot then
  last_slot = last_slot + 1
  size = size - 1
  redis.call('HSET', PACE, 'slot', whole(last_slot), 'next_us', whole(now + interval), 'next_before_us', whole(next_due))
  next_due = now + interval
end

size = size + admitted
local due = math.max(next_due, not_before)
if size > 0 then
  local expires = math.max(now, due) + grace
  local offer = {whole(ranks.fifo), whole(ranks.priority), whole(size), whole(due), whole(expires)}
  redis.call('HSET', OFFERS, worker, table.concat(offer, ' '))
end
local wait = due > now and due - now or poll
local is_late = slots_in_time < capacity and 1 or 0
return {admitted, gets_slot and 1 or 0, last_slot, policy, wait, other_callers + size, is_late}
