-- The quota that a run of a rate limiter's script is about.
--
-- ARGV     limit, window in µs
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
