-- Goes to the state ordered. Closing begins anew even where the breaker was closed already.
--
-- KEYS, ARGV  those of breaker.lua
-- ARGV[13]    CLOSED, FORCED_OPEN or FORCED_CLOSED
-- ARGV[14]    the reason kept with the transition
-- reply       the transition, nil where the state is what it was
--
-- @include breaker
local ordered = ARGV[13]
if ordered ~= state then
  return enter(ordered, ARGV[14])
elseif ordered == 'CLOSED' then
  begin(ordered)
end
