-- Runs commands that read, as one step. A transaction does the same and faster, but a server whose memory is full
-- takes none, not even one that only reads.
--
-- ARGV   for each command the number of its words, then the words
-- Reply  the reply of each command
local replies, place = {}, 1
while ARGV[place] do
  local last = place + tonumber(ARGV[place])
  replies[#replies + 1] = redis.call(unpack(ARGV, place + 1, last))
  place = last + 1
end
return replies
