-- Changes the state by hand. CLOSED and OPEN begin again if the breaker is already in that state.
--
-- KEYS, ARGV  those of breaker.lua
-- ARGV[15]    the new state: CLOSED, OPEN, FORCED_OPEN or FORCED_CLOSED
-- ARGV[16]    the reason, which is kept with the transition
-- ARGV[17]    the open time in µs; 0: the options determine it
-- Reply       the transition, or nil if the state did not change
--
-- @include breaker
local forced_state, forced_us = ARGV[15], tonumber(ARGV[17])
if forced_us == 0 then
  forced_us = nil
end
if forced_state ~= state then
  return enter(forced_state, ARGV[16], forced_us)
elseif forced_state == 'CLOSED' or forced_state == 'OPEN' then
  begin(forced_state, forced_us)
end
