-- prune_loose: delete the events of the log that belong to no run and are older than a time.
--
-- Asks for the time, and behind which number. Looks at 1,000 rows. Answers with the number to go on behind, or nothing.

register('prune_loose', function()
  local before = tonumber(ARGV[1])
  local rows, last = call('XRANGE', P .. 'events', '(' .. ARGV[2] .. '-0', '+', 'COUNT', 1000), nil
  for _, row in ipairs(rows) do
    local fields = {}
    for at = 1, #row[2], 2 do fields[row[2][at]] = row[2][at + 1] end
    if tonumber(fields.t) >= before then return false end
    if fields.r == '' then call('XDEL', P .. 'events', row[1]) end
    last = row[1]:match('^%d+')
  end
  return #rows == 1000 and last or false
end)
