-- emit: an event that belongs to no run.
--
-- Asks for now, worker or '', entries, token.

register('emit', function()
  return once(ARGV[4], function() return append('', false, ARGV[2], ARGV[3], ARGV[1]) end)
end)
