-- Decides several hits of one run, each in turn as if it had come alone. An error of one key, such as a foreign
-- value under it, is that hit's decision.
--
-- The file of an algorithm must stand before this one. It defines `hit(key, cost, spend)`, which returns a decision.
--
-- KEYS     from the index `first` on, one for each hit
-- ARGV     those of quota.lua; then for each hit its cost, and 1 to spend it or 0 to look only
--
-- @include quota

-- Return for each hit {allowed 1 or 0, remaining, µs until there is room for cost, µs until all is free}.
local function decide_hits(first)
  local decisions = {}
  for index = first, #KEYS do
    local number = index - first + 1
    local cost, spend = tonumber(ARGV[2 * number + 1]), ARGV[2 * number + 2] == '1'
    local ok, decision = pcall(hit, KEYS[index], cost, spend)
    if not ok and type(decision) ~= 'table' then
      decision = redis.error_reply(tostring(decision))
    end
    decisions[number] = decision
  end
  return decisions
end
