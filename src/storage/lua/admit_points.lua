-- Decides hits, and stores the point that each came with, if all are allowed. Otherwise no point is stored: the
-- points of a type are told in one, so that they cannot be told apart here.
--
-- KEYS   types                    as in metrics_add.lua
--        one for each hit
-- ARGV   those of verdicts.lua; then those of metrics_write.lua
-- Reply  {the reply of write_metrics, or {0} if a hit was refused, the verdicts}
local told = verdicts(2)
for _, verdict in ipairs(told) do
  if verdict[1] ~= 1 then -- refused, or an error
    return {{0}, told}
  end
end
return {write_metrics(KEYS[1], 3 + 2 * #told), told}
