-- due: retries whose time has come are ready, and runs whose time has come have failed.
--
-- Asks for now, window. Answers {when the next one is due or '', whether events were written, dispatches}.

local REASONS = {
  d = {'DeadlineExceeded', 'it had not ended by its deadline', NO_TRACE, NO_NAMES},
  x = {'Expired', 'nothing of it had begun when it expired', NO_TRACE, NO_NAMES},
}

-- Whether a step of the run was ever claimed.
local function has_begun()
  for n = 0, R.at[A_NEXT_N] - 1 do
    local state = call('HGET', R.key, 's' .. n)
    if state and tonumber(state:match('^%["%u+",%d+,(%d+)')) > 0 then return true end
  end
  return false
end

-- End a run whose time has come.
local function end_overdue(kind, run_id)
  if not open_run(run_id) or R.at[A_ENDED] then return end
  if not R.at[kind == 'd' and A_DEADLINE or A_EXPIRES] or (kind == 'x' and has_begun()) then return end
  local ending, reason = R.at[A_ENDING], REASONS[kind]
  single = R.at[A_SINGLE]
  begin_ending('FAILED', reason)
  say_starts(open_steps())
  local stopped = stop('CANCELLED', reason, true)
  say('task.cancelled', stopped, '"error":' .. encode(reason[2]) .. ',"error_type":' .. encode(reason[1]))
  end_run(ending or 'FAILED')
  write_run()
end

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
  local timed = call('ZRANGEBYSCORE', P .. 'timed', '-inf', now)
  for _, name in ipairs(timed) do
    call('ZREM', P .. 'timed', name)
    end_overdue(name:sub(1, 1), name:sub(2))
  end
  if #timed > 0 then commit() else fill(touched) end
  local next_due = call('ZRANGE', P .. 'due', 0, 0, 'WITHSCORES')[2]
  local next_timed = call('ZRANGE', P .. 'timed', 0, 0, 'WITHSCORES')[2]
  if next_timed and (not next_due or tonumber(next_timed) < tonumber(next_due)) then next_due = next_timed end
  return {next_due or '', #ready + #timed > 0 and 1 or 0, dispatches}
end)
