-- Decides hits, and stores the point that each came with, if all hits are allowed. Otherwise no point is stored: the
-- points of a type arrive as one, so that this script cannot separate them.
--
-- KEYS   types                    as in metrics_add.lua
--        those of decide_hits.lua
-- ARGV   the index of the first argument of metrics_write.lua; then those of decide_hits.lua; then those of
--        metrics_write.lua
-- Reply  {the reply of plan_metrics or store_metrics, {0} if a hit or the points were refused, the decisions}
--
-- @include ../../resilience/rate_limiter/decide_hits
-- @include metrics_write
local decisions = decide_hits(2, 2)
for _, decision in ipairs(decisions) do
  if decision[1] ~= 1 then -- refused, or an error
    return {{0}, decisions}
  end
end
local is_done, written = pcall(function()
  local types, reply = plan_metrics(KEYS[1], tonumber(ARGV[1]))
  return reply or store_metrics(KEYS[1], types)
end)
-- If the points were refused, the decisions hold all the same, and each point is then stored in a run of its own.
return {is_done and written or {0}, decisions}
