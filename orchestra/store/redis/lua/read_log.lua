-- read_log: what happened behind a cursor, the first rows or the last. Asks for cursor, limit, 1 for the last. Answers
-- with rows of the log.

register('read_log', function()
  local log, behind, found = P .. 'events', '(' .. ARGV[1] .. '-0', {}
  if ARGV[3] ~= '1' then
    for _, row in ipairs(call('XRANGE', log, behind, '+', 'COUNT', ARGV[2])) do put_row(found, row) end
    return found
  end
  local rows = call('XREVRANGE', log, '+', behind, 'COUNT', ARGV[2])
  for at = #rows, 1, -1 do put_row(found, rows[at]) end
  return found
end, true)
