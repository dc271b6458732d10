-- Decides several hits of one run, each in turn as if it had come alone. A hit is allowed if each of its quotas has
-- room for its cost; it takes its cost from all of them or from none. An error of one key, such as a foreign value
-- under it, is that hit's decision.
--
-- The file of an algorithm must stand before this one. It defines `hit(key, cost, spend, limit, window)`, which returns
-- the decision of one quota.
--
-- KEYS     from the index `key` on, for each hit one key for each of its quotas
-- ARGV     from the index `argument` on, for each hit its cost, negative to look only, and where its list of quotas is:
--          the distance of the list from `argument`; then the lists: the number of quotas, and for each its limit and
--          its window in µs

-- Return the decisions of a hit by each quota of the list at the index `list` as one decision.
local function hit_each(key, cost, spend, list)
  local decision = {1}
  for number = 0, ARGV[list] - 1 do
    local limit, window = tonumber(ARGV[list + 2 * number + 1]), tonumber(ARGV[list + 2 * number + 2])
    local allowed, remaining, wait, reset = unpack(hit(KEYS[key + number], cost, spend, limit, window))
    decision[1] = math.min(decision[1], allowed)
    decision[3 * number + 2], decision[3 * number + 3], decision[3 * number + 4] = remaining, wait, reset
  end
  return decision
end

-- Nothing is taken before each quota has been found to have room.
local function hit_all(key, cost, spend, list)
  local decision = hit_each(key, cost, false, list)
  return spend and decision[1] == 1 and hit_each(key, cost, true, list) or decision
end

-- Return for each hit {allowed 1 or 0, then for each quota: remaining, µs until there is room for cost, µs until all is
-- free}.
local function decide_hits(key, argument)
  local decisions, index = {}, argument
  local distance, list, limit, window -- of the hit before, and mostly of all hits
  while KEYS[key] do
    local cost, spend = tonumber(ARGV[index]), true
    if cost < 0 then
      cost, spend = -cost, false
    end
    if ARGV[index + 1] ~= distance then
      distance = ARGV[index + 1]
      list = argument + distance
      limit, window = tonumber(ARGV[list + 1]), tonumber(ARGV[list + 2])
    end
    local ok, decision
    if ARGV[list] == '1' then
      ok, decision = pcall(hit, KEYS[key], cost, spend, limit, window)
    else
      ok, decision = pcall(hit_all, key, cost, spend, list)
    end
    if not ok and type(decision) ~= 'table' then
      decision = redis.error_reply(tostring(decision))
    end
    decisions[#decisions + 1] = decision
    key, index = key + ARGV[list], index + 2
  end
  return decisions
end
