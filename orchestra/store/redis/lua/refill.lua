-- refill: fill the windows of some queues.
--
-- Asks for now, window, queues. Answers with dispatches.

register('refill', function()
  now, window = ARGV[1], tonumber(ARGV[2])
  fill({unpack(ARGV, 3)})
  return dispatches
end)
