-- Tells how the line stands. Changes nothing.
--
-- KEYS   those of paced.lua
-- reply  {policy or nil, callers in line, age in µs of the one who came first or nil}
local lines, callers = live_lines()
local oldest
for _, line in pairs(lines) do
  oldest = math.min(oldest or line.fifo, line.fifo)
end
return {redis.call('HGET', PACE, 'policy'), callers, oldest and now - oldest or false}
