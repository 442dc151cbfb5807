-- take_cursor: hold the cursor of a subscriber, if nobody else does. A cursor is a hash of seq, holder, until.
--
-- Asks for name, holder, start, now, until, instead of. Answers with seq, holder.

register('take_cursor', function()
  local key = P .. 'cursor:' .. ARGV[1]
  local got = call('HMGET', key, 'seq', 'holder', 'until')
  if not got[1] then
    call('HSET', key, 'seq', ARGV[3], 'holder', ARGV[2], 'until', ARGV[5])
  elseif got[2] == ARGV[2] or got[2] == ARGV[6] or tonumber(got[3]) <= tonumber(ARGV[4]) then
    call('HSET', key, 'holder', ARGV[2], 'until', ARGV[5])
  end
  return call('HMGET', key, 'seq', 'holder')
end)
