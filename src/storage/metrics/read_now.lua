-- Returns the time, in µs since 1970.
--
-- @include ../../resilience/redis/now
return string.format('%.0f', now)
