-- cancel: a run, or one of its steps. Mirrors cancel() of transitions.py.
--
-- Asks for run, n or '', now, token, window. Answers {how the run ended or '', dispatches}, or nothing.

local CANCELLED = {'Cancelled', 'cancelled by request', NO_TRACE, NO_NAMES}

local function cancel_run()
  local ending = R.at[A_ENDING]
  begin_ending('CANCELLED', CANCELLED)
  say_starts(open_steps())
  say('task.cancelled', (stop('CANCELLED', CANCELLED, true)))
  return end_run(ending or 'CANCELLED')
end

local function cancel_step(n)
  local step = step_of(n)
  local status = step and step.s[STATUS]
  if not step or status == 'COMPLETED' or status == 'FAILED' or status == 'CANCELLED' or status == 'SKIPPED' then
    return nil
  end
  say_starts({n})
  close(step, 'CANCELLED')
  put('x' .. n, error_text(CANCELLED))
  say('task.cancelled', {n}, '"name":' .. encode(step.f[NAME]))
  touch(step.f[QUEUE])
  return end_early(step, 'CANCELLED', CANCELLED) or ''
end

register('cancel', function()
  now = ARGV[3]
  set_window(ARGV[5])
  return once(ARGV[4], function()
    if not open_run(ARGV[1]) or R.at[A_ENDED] then return false end
    single = R.at[A_SINGLE]
    local ended
    if ARGV[2] == '' or single then ended = cancel_run() else ended = cancel_step(tonumber(ARGV[2])) end
    if not ended then return false end
    return {ended, commit()}
  end)
end)
