-- Decides hits, and stores their points if all hits are allowed. If a hit is refused, no point is stored, because the
-- points of a type are packed together and the script cannot separate them.
--
-- KEYS   the set of types, as in metrics_add.lua; then the keys of decide_hits.lua
-- ARGV   the index of the first argument of metrics_write.lua; the arguments of decide_hits.lua; those of metrics_write.lua
-- Reply  {the reply of plan_metrics or store_metrics, the decisions}. The first part is {0} if a hit or the points were
--        refused.
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
-- If the points were refused, the decisions are still valid. The caller then stores each point in a separate run.
return {is_done and written or {0}, decisions}
