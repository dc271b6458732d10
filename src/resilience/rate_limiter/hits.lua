-- Decides hits.
--
-- KEYS, ARGV, reply   those of decide_hits.lua
--
-- @include decide_hits
return decide_hits(1, 1)
