-- Runs read commands in one atomic step. A transaction is faster, but a server with full memory refuses every
-- transaction, even one with only read commands.
--
-- ARGV   for each command: the number of its words, then the words
-- Reply  the reply of each command
local replies, position = {}, 1
while ARGV[position] do
  local last = position + tonumber(ARGV[position])
  replies[#replies + 1] = redis.call(unpack(ARGV, position + 1, last))
  position = last + 1
end
return replies
