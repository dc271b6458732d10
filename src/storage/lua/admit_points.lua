-- Decides hits, and stores the point that each came with, if all are allowed. Otherwise no point is stored: the
-- points of a type are told in one, so that they cannot be told apart here.
--
-- KEYS   types                    as in add_points.lua
--        one for each hit
-- ARGV   those of verdicts.lua; then those of points.lua
-- Reply  {1 stored, 0 not, or a text, the reason why that is not known; the verdicts}
local told = verdicts(2)
for _, verdict in ipairs(told) do
  if verdict[1] ~= 1 then -- refused, or an error
    return {0, told}
  end
end
local is_done, failure = pcall(function()
  plan_points(KEYS[1], 3 + 2 * #told)
  return store_points()
end)
-- Where the points were refused, the verdicts hold all the same, and each point is then stored in a run of its own.
return {is_done and (failure or 1) or 0, told}
