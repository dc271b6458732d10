-- The shared part of the two buckets. A unit is an interval of time. The units taken are a debt in µs, which falls by
-- 1 per µs. All numbers are whole, so rounding errors do not add up.
--
-- A key stores the interval by which its debt was counted. If the quota has changed since, whole units of debt are
-- converted to the new interval. The rest, a part of a unit, becomes free at its former time or after one new interval,
-- whichever is earlier.

-- Return `debt`, which was counted by the interval `from`, converted to the interval `to`, and at most `capacity`.
local function convert(debt, from, to, capacity)
  if from ~= to then
    local units = math.floor(debt / from)
    debt = units * to + math.min(debt - units * from, to)
  end
  return math.min(debt, capacity)
end
