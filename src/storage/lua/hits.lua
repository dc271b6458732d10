-- Decides hits.
--
-- KEYS, ARGV, reply   those of verdicts.lua
return verdicts(1)
