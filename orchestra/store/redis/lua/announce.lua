-- announce: write the starts of what a worker has been running for a while.
--
-- Asks for worker, started before, now. Answers how many there were.

register('announce', function()
  local worker, before = ARGV[1], ARGV[2]
  now = ARGV[3]
  local count, held = 0, P .. 'h:' .. worker

  for _, name in ipairs(call('ZRANGEBYSCORE', held, '-inf', '(' .. before)) do
    local run_id, n = name:match('^(.*)%.(%d+)%.%d+%.%d+$')
    n = tonumber(n)
    open_run(run_id, n)
    local step = R.steps[n]
    entries = {}
    if say_started(step, step.s[ATTEMPTS] + 1) then
      count = count + 1
      append_to_run(worker, '[' .. entries[1] .. ']')
      change(step)
      flush()
    end
    call('ZADD', held, '+inf', name) -- it is not looked at again
  end
  return count
end)
