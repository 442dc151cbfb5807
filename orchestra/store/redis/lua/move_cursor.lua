-- move_cursor: a subscriber has read on. Asks for name, holder, seq, until. Answers 1, or 0 when another one holds it.

register('move_cursor', function()
  local key = P .. 'cursor:' .. ARGV[1]
  if call('HGET', key, 'holder') ~= ARGV[2] then return 0 end
  call('HSET', key, 'seq', ARGV[3], 'until', ARGV[4])
  return 1
end)
