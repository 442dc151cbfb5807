-- due: retries whose time has come are ready.
--
-- Asks for now, window. Answers {when the next one is due or '', whether events were written, dispatches}.

register('due', function()
  now = ARGV[1]
  set_window(ARGV[2])

  local ready = call('ZRANGEBYSCORE', P .. 'due', '-inf', now)
  for _, name in ipairs(ready) do
    local run_id, n = name:match('^(.*)%.(%d+)$')
    call('ZREM', P .. 'due', name)
    if open_run(run_id, tonumber(n)) then
      local step = R.steps[tonumber(n)]
      step.s[DUE] = false
      make_ready(step)
      append_to_run('', '[["task.queued",[' .. n .. '],{}]]')
      flush()
    end
  end
  fill(touched)
  local next_due = call('ZRANGE', P .. 'due', 0, 0, 'WITHSCORES')
  return {next_due[2] or '', #ready > 0 and 1 or 0, dispatches}
end)
