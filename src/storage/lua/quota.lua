-- The quota that a run of a rate limiter's script is about, and when it is: one instant for all its hits.
--
-- ARGV     limit, window in µs
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = now_us()
