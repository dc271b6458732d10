-- Reads the time once, so that all decisions of a run use the same time, in µs.
local now = now_us()
