-- The time of a run: one instant for all decisions of the script, in µs.
local now = now_us()
