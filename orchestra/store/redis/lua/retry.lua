-- retry: open a run again that has ended, as engine.again has worked out from what was read of it.
--
-- Asks for run, when it had ended as it was read, now, token, window, remaining, steps as JSON ([n, status, parts left or
-- false] each), their numbers as JSON, joins, the steps that no way leads to. Answers like cancel, or 'again' when it has changed meanwhile.

-- A step begins a new generation.
local function renew(step, status, left)
  local s = step.s
  s[STATUS], s[GENERATION], s[ATTEMPTS], s[CRASHES], s[ENDED] = status, s[GENERATION] + 1, 0, 0, false
  if left or s[RESENDS] then
    widen(s)
    s[RESENDS], s[DUE], s[LEFT], s[BROKEN] = 0, false, left, 0
  end
  -- The parts of a map may be pending anywhere among the others now.
  local range = left and call('HGET', R.key, 'k' .. step.n)
  if range then put('k' .. step.n, (range:gsub('^(%d+),(%d+),%d+', '%1,%2,%1'))) end
end

register('retry', function()
  now = ARGV[3]
  set_window(ARGV[5])
  return once(ARGV[4], function()
    if not open_run(ARGV[1]) then return false end
    local at, steps = R.at, decode(ARGV[7])
    if at[A_ENDED] ~= ARGV[2] then return 'again' end
    move_run('RUNNING')
    at[A_ENDED], at[A_ENDING], at[A_FAILED], at[A_REMAINING] = false, false, false, tonumber(ARGV[6])
    if at[A_DEADLINE] then at[A_DEADLINE] = false end
    if at[A_EXPIRES] then at[A_EXPIRES] = false end
    if at[A_JOB] then call('SADD', P .. 'jo:' .. at[A_JOB], R.id) end
    call('HDEL', R.key, 'err')
    say('workflow.retried', {})
    entries[#entries + 1] = '["task.retrying",' .. ARGV[8] .. ',{"by":"request"}]'
    local numbers = {}
    for at_, each in ipairs(steps) do numbers[at_] = each[1] end
    read_steps(numbers)
    for _, each in ipairs(steps) do renew(R.steps[each[1]], each[2], each[3]) end
    set_joins(ARGV[9])
    open_again(steps)
    local ended_run = shut(decode(ARGV[10]))
    return {ended_run or '', commit()}
  end)
end)
