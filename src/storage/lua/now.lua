-- When a script runs: one instant for all that it does, in µs.
local now = now_us()
