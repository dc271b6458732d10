-- Hits that came together, each decided in turn as if it had come alone. What goes wrong with one key, such as
-- a foreign value under it, is told in its own reply.
--
-- needs    `quota.lua` and, of one of the algorithms, `hit(key, cost, spend)`, which returns one such reply
-- KEYS     one for each hit
-- ARGV     limit, window in µs; then for each hit its cost, and 1 to spend or 0 to look
-- reply    for each hit {allowed 1 or 0, remaining, µs until there is room for cost, µs until all is free}
local replies = {}
for number, key in ipairs(KEYS) do
  local ok, reply = pcall(hit, key, tonumber(ARGV[2 * number + 1]), ARGV[2 * number + 2] == '1')
  replies[number] = ok and reply or type(reply) == 'table' and reply or redis.error_reply(tostring(reply))
end
return replies
