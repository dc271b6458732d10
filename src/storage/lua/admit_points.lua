-- Decides hits, and stores the point that each came with, if all are allowed. Otherwise no point is stored: the
-- points of a type come as one, so that they cannot be told apart here.
--
-- KEYS   types                    as in metrics_add.lua
--        one for each hit
-- ARGV   those of verdicts.lua; then those of metrics_write.lua
-- Reply  {the reply of plan_metrics or store_metrics, {0} if a hit was refused or the points were, the verdicts}
local told = verdicts(2)
for _, verdict in ipairs(told) do
  if verdict[1] ~= 1 then -- refused, or an error
    return {{0}, told}
  end
end
local is_done, written = pcall(function()
  local types, reply = plan_metrics(KEYS[1], 3 + 2 * #told)
  return reply or store_metrics(KEYS[1], types)
end)
-- If the points were refused, the verdicts hold all the same, and each point is then stored in a run of its own.
return {is_done and written or {0}, told}
