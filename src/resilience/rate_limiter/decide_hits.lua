-- Decides several hits in one run, one after another, as if each had come alone. A hit is allowed if each of its quotas
-- has room for its cost. It takes its cost from all of them or from none. If a key causes an error, for example because
-- its value has another type, the error is the decision of that hit.
--
-- The loader puts the file of an algorithm before this one. It defines `hit(key, cost, spend, limit, window)`, which
-- returns the decision of one quota.
--
-- KEYS     from the index `key` on: for each hit, one key per quota
-- ARGV     from the index `argument` on: for each hit, its cost (negative for a hit that takes nothing) and the distance
--          of its list of quotas from `argument`; then the lists: the number of quotas, and for each quota its limit
--          and its window in µs

-- Return one decision on a hit, from the decision of each quota of the list at the index `list`.
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

-- Return the decision on a hit. Takes the units only after every quota was found to have room.
local function hit_all(key, cost, spend, list)
  local decision = hit_each(key, cost, false, list)
  return spend and decision[1] == 1 and hit_each(key, cost, true, list) or decision
end

-- Return for each hit {allowed 1 or 0, then for each quota: remaining, µs until there is room for cost, µs until all is
-- free}.
local function decide_hits(key, argument)
  local decisions, index = {}, argument
  local distance, list, limit, window -- those of the previous hit, and in most runs those of all hits
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
