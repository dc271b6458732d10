-- The quota of a run of a rate limiter's script.
--
-- ARGV     limit, window in µs
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
