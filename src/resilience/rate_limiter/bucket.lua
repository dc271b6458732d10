-- What the two buckets share. A unit is worth an interval of time, and what was taken is a debt in µs that falls by
-- one a µs. Every figure is whole, so nothing drifts.
--
-- A key stores the interval by which its debt was counted. If the quota has been changed since, the units in debt stay
-- in debt at the new interval. The part of a unit that is left comes back when it would have, or after one new interval.

-- Return `debt`, counted by the interval `from`, by the interval `to`, and at most `capacity`.
local function convert(debt, from, to, capacity)
  if from ~= to then
    local units = math.floor(debt / from)
    debt = units * to + math.min(debt - units * from, to)
  end
  return math.min(debt, capacity)
end
