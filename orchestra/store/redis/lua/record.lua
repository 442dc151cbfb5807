-- record: what a claim came to. Mirrors record() of transitions.py.
--
-- Asks for run, n, generation, claim, now, token, window, kind, and what the kind of change says (see changes.py).
-- Answers {how the run ended or '', dispatches}, and 1 when it was asked again; nothing when the claim was superseded.

local n, token

-- The error that the change carries.
local function error_of_change()
  return {ARGV[9], ARGV[10], ARGV[11], ARGV[12]}
end

-- The claim leaves RUNNING; `attempted` and `crashed` say what it counts as.
local function end_claim(step, status, attempted, crashed)
  local s = step.s
  if status == 'COMPLETED' or status == 'FAILED' then close(step, status) else leave(step) end
  s[STATUS], s[TOKEN] = status, token
  s[ATTEMPTS], s[CRASHES] = s[ATTEMPTS] + attempted, s[CRASHES] + crashed
  say_started(step, s[ATTEMPTS] + 1 - attempted)
  touch(step.f[QUEUE])
end

-- The run is only waiting for what is running to be over: nothing is begun any more.
local function not_again(step)
  close(step, 'SKIPPED')
  put('x' .. n, error_text({'Skipped', 'not tried again, because the run was ending', NO_TRACE, NO_NAMES}))
  say('task.skipped', {n}, about(step))
  return {}, count_run()
end

local function completed(step)
  local dead = {}
  for number in ARGV[10]:gmatch('%d+') do dead[tonumber(number)] = true end
  set_error(step, nil)
  end_claim(step, 'COMPLETED', 1, 0)
  put('o' .. n, ARGV[9])
  local took = step.s[STARTED] and string.format(',"duration_s":%.6f', tonumber(now) - tonumber(step.s[STARTED])) or ''
  say('task.completed', {n}, about(step) .. took)
  return {{step, 'LIVE', dead}}, nil
end

local function failed_for_good(step)
  local error = error_of_change()
  local falls_back = has_call_instead(step) and not R.at[A_ENDING]
  set_error(step, error_text(error))
  end_claim(step, falls_back and 'WAITING' or 'FAILED', tonumber(ARGV[13]), tonumber(ARGV[14]))
  if falls_back then
    fall_back(step, error)
    return {}, nil
  end
  return failed(step, error, about(step))
end

local function rescheduled(step)
  local error, due_at, after_s = error_of_change(), ARGV[13], ARGV[14]
  set_error(step, error_text(error))
  end_claim(step, 'RETRYING', tonumber(ARGV[15]), 0)
  widen(step.s)[DUE] = due_at
  call('ZADD', P .. 'due', due_at, R.id .. '.' .. n)
  if R.at[A_ENDING] then return not_again(step) end
  say('task.retrying', {n}, about(step) .. ',"error":' .. encode(cut(shown(error), 500)) .. ',"after_s":' .. after_s)
  return {}, nil
end

local function reopened(step)
  local error, crashed = error_of_change(), tonumber(ARGV[13])
  set_error(step, crashed == 1 and error_text(error) or nil)
  end_claim(step, 'QUEUED', 0, crashed)
  enqueue(step)
  if R.at[A_ENDING] then return not_again(step) end
  say('task.retrying', {n}, about(step) .. ',"error":' .. encode(error[2]) .. ',"crashes":' .. step.s[CRASHES]
    .. ',"after_s":0')
  return {}, nil
end

-- The step waits for others. Their rows are in the arguments from 16 on, or were written before by stage_parts.
local function expanded(step)
  local parts, collects, first, total, ready, open = unpack(ARGV, 9, 14)
  set_error(step, nil)
  end_claim(step, 'WAITING', 0, 0)
  local s = widen(step.s)
  first, total = tonumber(first), tonumber(total)
  s[LEFT], s[BROKEN], s[COLLECTS] = tonumber(parts), 0, tonumber(collects) or false
  if total == 0 then return gather(n, 0, nil, {}) end
  if R.at[A_ENDING] then return not_again(step) end
  local numbers = {}
  for number = first, first + total - 1 do numbers[#numbers + 1] = number end
  put('k' .. n, first .. ',' .. (first + total - 1) .. ',' .. first)
  add_rows(R.key, 16)
  local queued = add_states(R.key, R.id, first, total, ready, open)
  index_keys(R.id, ARGV[15])
  say('task.submitted', numbers, '"of":' .. n)
  if #queued > 0 then say('task.queued', queued) end
  return {}, nil
end

local kinds = {
  completed = completed, failed = failed_for_good, rescheduled = rescheduled, reopened = reopened, expanded = expanded,
}
register('record', function()
  local generation, claim, kind = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[8]
  n, now, token = tonumber(ARGV[2]), ARGV[5], ARGV[6]
  set_window(ARGV[7])
  if not open_run(ARGV[1], n) then return false end
  local step = R.steps[n]
  if not step then return false end
  if step.s[TOKEN] == token then
    -- Asked again, since the answer was lost: what it released is found by those who look for lost messages.
    return {R.at[A_ENDED] and R.at[A_STATUS] or '', {}, 1}
  end
  if step.s[STATUS] ~= 'RUNNING' or step.s[CLAIMS] ~= claim or step.s[GENERATION] ~= generation then return false end
  single = is_single(step)
  local arriving, ended_run = kinds[kind](step)
  ended_run = settle(arriving) or ended_run
  if kind == 'failed' and ARGV[9] == 'TaskNotFound' then blame_job(error_of_change()) end
  return {ended_run or '', commit()}
end)
