-- Hits that came together, each decided in turn as if it had come alone. What goes wrong with one key, such as
-- a foreign value under it, is told in its own verdict.
--
-- needs    `quota.lua` and, of one of the algorithms, `hit(key, cost, spend)`, which returns one verdict
-- KEYS     from the place `first` on, one for each hit
-- ARGV     those of `quota.lua`; then for each hit its cost, and 1 to spend or 0 to look

-- Return for each {allowed 1 or 0, remaining, µs until there is room for cost, µs until all is free}.
local function verdicts(first)
  local told = {}
  for place = first, #KEYS do
    local number = place - first + 1
    local cost, spend = tonumber(ARGV[2 * number + 1]), ARGV[2 * number + 2] == '1'
    local ok, verdict = pcall(hit, KEYS[place], cost, spend)
    told[number] = ok and verdict or type(verdict) == 'table' and verdict or redis.error_reply(tostring(verdict))
  end
  return told
end
