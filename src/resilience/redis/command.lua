-- Runs a single command, so that it can be sent like a script.
--
-- KEYS   the keys of the command
-- ARGV   the name of the command, then its arguments after the keys
-- Reply  the reply of the command
local words = {ARGV[1], unpack(KEYS)}
for index = 2, #ARGV do
  words[#words + 1] = ARGV[index]
end
return redis.call(unpack(words))
