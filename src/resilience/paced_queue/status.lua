-- Tells how the line stands. Changes nothing.
--
-- KEYS     those of queue.lua
-- ARGV[1]  interval in µs
-- ARGV[2]  µs of grace
-- reply    {policy or nil, callers in line, age in µs of the one who came first or nil, µs until the next turn is
--          due}
--
-- @include queue
local interval, grace = tonumber(ARGV[1]), tonumber(ARGV[2])
local lines, callers = live_lines(interval, grace)
local oldest
for _, line in pairs(lines) do
  oldest = math.min(oldest or line.fifo, line.fifo)
end
local due = math.max(due_by_pace(interval), postponed_until())
return {redis.call('HGET', PACE, 'policy'), callers, oldest and now - oldest or false, math.max(0, due - now)}
