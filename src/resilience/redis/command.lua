-- Runs one command, for a decision that needs no script of its own.
--
-- KEYS   the keys of the command
-- ARGV   its name; then the arguments that stand after the keys
-- Reply  that of the command
local words = {ARGV[1], unpack(KEYS)}
for index = 2, #ARGV do
  words[#words + 1] = ARGV[index]
end
return redis.call(unpack(words))
