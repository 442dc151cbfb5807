-- refill: fill the windows of some queues.
--
-- Asks for now, window, queues. Answers with dispatches.

register('refill', function()
  now = ARGV[1]
  set_window(ARGV[2])
  fill({unpack(ARGV, 3)})
  return dispatches
end)
