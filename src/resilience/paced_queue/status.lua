-- Returns the status of the queue. Changes nothing.
--
-- KEYS     those of queue.lua
-- ARGV[1]  the interval in µs
-- ARGV[2]  the grace period in µs
-- Reply    {policy or nil, number of waiting callers, longest wait so far in µs or nil, µs until the next slot is due}
--
-- @include queue
local interval, grace = tonumber(ARGV[1]), tonumber(ARGV[2])
local offers, callers = valid_offers(interval, grace)
local earliest
for _, offer in pairs(offers) do
  earliest = math.min(earliest or offer.fifo, offer.fifo)
end
local due = math.max(due_by_pace(interval), postponed_until())
return {redis.call('HGET', PACE, 'policy'), callers, earliest and now - earliest or false, math.max(0, due - now)}
