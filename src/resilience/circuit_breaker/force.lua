-- Goes to the state ordered. CLOSED and OPEN begin again also where the breaker is in that state.
--
-- KEYS, ARGV  those of breaker.lua
-- ARGV[15]    CLOSED, OPEN, FORCED_OPEN or FORCED_CLOSED
-- ARGV[16]    the reason kept with the transition
-- ARGV[17]    µs that OPEN lasts; 0: as long as the options say
-- reply       the transition, nil where the state is what it was
--
-- @include breaker
local ordered, ordered_us = ARGV[15], tonumber(ARGV[17])
if ordered_us == 0 then
  ordered_us = nil
end
if ordered ~= state then
  return enter(ordered, ARGV[16], ordered_us)
elseif ordered == 'CLOSED' or ordered == 'OPEN' then
  begin(ordered, ordered_us)
end
