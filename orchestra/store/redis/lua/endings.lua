-- Endings: what the end of a step means for others. Mirrors orchestra/store/endings.py, name by name.

local NO_TRACE, NO_NAMES = '', '[]'
local NOT_TAKEN = {'NotTaken', 'not run, because no way into it was taken', NO_TRACE, NO_NAMES}

-- Whether a step is waited for by its run, or by what it is a part of: nothing else is sure to wait for it.
local function is_last(step)
  if step.f[FEEDS] == 0 then return true end
  for _, feed in ipairs(step.f[FEEDS]) do
    if feed[4] == 0 then return false end
  end
  return true
end

-- The error of a run, which names the step to blame.
local function blamed(step, error)
  return {error[1], quoted(step) .. ': ' .. shown(error), error[3], error[4]}
end

local function blamed_in_run(step, error)
  return single and error or blamed(step, error)
end

-- End the run, unless it has ended.
local function end_run(status)
  local at = R.at
  if at[A_ENDED] then return nil end
  call('ZREM', P .. 'runs:' .. at[A_STATUS], R.id)
  -- Completed runs are nearly all there are, so that these are found without a set of their own.
  if status ~= 'COMPLETED' then call('ZADD', P .. 'runs:' .. status, at[A_CREATED], R.id) end
  if at[A_JOB] then call('SREM', P .. 'jo:' .. at[A_JOB], R.id) end
  at[A_STATUS], at[A_ENDED], R.at_changed = status, now, true
  if not at[A_SINGLE] then
    say('workflow.' .. status:lower(), {})
    -- who submits it again learns from this run what its steps take
    if status == 'COMPLETED' then call('HSET', P .. 'learn', decode(call('HGET', R.key, 'run'))[1], R.id) end
  end
  return status
end

-- One of the steps that the run waits for has ended.
local function count_run()
  local at = R.at
  at[A_REMAINING], R.at_changed = at[A_REMAINING] - 1, true
  if at[A_REMAINING] > 0 then return nil end
  return end_run(at[A_ENDING] or (at[A_FAILED] and 'FAILED' or 'COMPLETED'))
end

-- Decide how the run will end; false when that was decided before.
local function begin_ending(status, error)
  local at = R.at
  if at[A_ENDING] or at[A_ENDED] then return false end
  at[A_ENDING], at[A_FAILED], R.at_changed = status, true, true
  put('err', error_text(error))
  return true
end

-- Keep the first error of a run that goes on.
local function note_error(error)
  if R.at[A_FAILED] then return end
  R.at[A_FAILED], R.at_changed = true, true
  put('err', error_text(error))
end

-- Read every step that is open; returns their numbers, in order.
local function open_steps()
  local found, last = {}, R.at[A_NEXT_N] - 1
  for first = 0, last, 1000 do
    local fields = {}
    for n = first, math.min(first + 999, last) do fields[#fields + 1] = 's' .. n end
    for at, state in ipairs(call('HMGET', R.key, unpack(fields))) do
      local n = first + at - 1
      local status = R.steps[n] and R.steps[n].s[STATUS] or (state and state:match('^%["(%u+)"'))
      if status and not (status == 'COMPLETED' or status == 'FAILED' or status == 'CANCELLED' or status == 'SKIPPED') then
        found[#found + 1] = n
      end
    end
  end
  read_steps(found)
  return found
end

-- End what is open and not running, or all that is open; returns their numbers, and how many are running still.
local function stop(status, error, running_too)
  local stopped, running, text = {}, 0, error_text(error)
  for _, n in ipairs(open_steps()) do
    local step = R.steps[n]
    if step.s[STATUS] == 'RUNNING' and not running_too then
      running = running + 1
    else
      close(step, status)
      put('x' .. n, text)
      touch(step.f[QUEUE])
      stopped[#stopped + 1] = n
    end
  end
  return stopped, running
end

-- Say that what is running has started, before it ends.
local function say_starts(numbers)
  for _, n in ipairs(numbers) do
    local step = step_of(n)
    if step and step.s[STATUS] == 'RUNNING' then say_started(step, step.s[ATTEMPTS] + 1) end
  end
end

-- Skip what has not started, and wait for what is running.
local function end_early(step, status, error)
  if not begin_ending(status, blamed_in_run(step, error)) then return count_run() end
  local name = quoted(step)
  local reason = {'Skipped', 'not run, because ' .. name .. ' ended before: ' .. cut(shown(error), 300), NO_TRACE, NO_NAMES}
  local skipped, running = stop('SKIPPED', reason, false)
  if #skipped > 0 then say('task.skipped', skipped, '"because":' .. encode(step.f[NAME])) end
  R.at[A_REMAINING], R.at_changed = running, true
  return running == 0 and end_run(status) or nil
end

-- What a failed step was a part of has failed with it.
local function fail_parents(step, error)
  local blame = blamed(step, error)
  local parent = step.f[PARENT]
  while parent do
    local ended = step_of(parent)
    if ended.s[STATUS] ~= 'WAITING' then return end
    close(ended, 'FAILED')
    put('x' .. parent, error_text(blame))
    meet(ended)
    say('task.failed', {parent}, '"name":' .. encode(ended.f[NAME]) .. ',"error":' .. encode(cut(shown(blame), 500))
      .. ',"error_type":' .. encode(error[1]))
    parent = ended.f[PARENT]
  end
end

-- Whether a step has a call that is made instead when it has failed.
local function has_call_instead(step)
  return step.f[FALLBACK] ~= 0 and not step.s[FELL] and step.f[IS_MAP] == 0
end

-- Whether a waiting step, or one that it is a part of, has a fallback and is no map.
local function is_caught(parent)
  while parent do
    local above = step_of(parent)
    if above.s[STATUS] == 'WAITING' and has_call_instead(above) then return true end
    parent = above.f[PARENT]
  end
  return false
end

-- A step failed for good: end the run, or let go on what does not depend on it.
local function failed(step, error, told)
  say('task.failed', {step.n}, told .. ',"error":' .. encode(cut(shown(error), 500)) .. ',"error_type":' .. encode(error[1]))
  local broken = {{step, 'BROKEN', {}}}
  if not R.at[A_ENDING] and step.f[PARENT] and is_caught(step.f[PARENT]) then return broken, nil end
  if R.at[A_GOES_ON] then
    note_error(blamed_in_run(step, error))
    return broken, nil
  end
  fail_parents(step, error)
  return {}, end_early(step, 'FAILED', error)
end

-- The fallback runs in the place of a step, as its only part. Its rows were made together with those of the step.
local function fall_back(step, error)
  local n, s = R.at[A_NEXT_N], widen(step.s)
  R.at[A_NEXT_N], R.at_changed = n + 1, true
  s[LEFT], s[BROKEN], s[COLLECTS], s[FELL] = 1, 0, n, true
  change(step)
  local before, after, input = call('HGET', R.key, 'g' .. step.n):match('^([^\n]*)\n([^\n]*)\n(.*)$')
  local text = before .. now .. after
  local part = {n = n, s = decode('["QUEUED"' .. FRESH), f = decode(text), text = text}
  R.steps[n] = part
  put('f' .. n, text)
  put('i' .. n, input)
  call('HSET', P .. 'steps', part.f[NAME], R.id .. '.' .. n)
  call('HINCRBY', P .. 'open', part.f[QUEUE], 1)
  say('task.retrying', {step.n}, '"name":' .. encode(step.f[NAME]) .. ',"error":' .. encode(cut(shown(error), 500))
    .. ',"fallback":' .. encode(step.f[FALLBACK][3]))
  say('task.submitted', {n}, '"of":' .. step.n)
  make_ready(part)
  say('task.queued', {n})
end

-- A way into a join was not taken, or broke.
local function note_dead(number, part)
  local dead = call('HGET', R.key, 'd' .. number)
  call('HSET', R.key, 'd' .. number, dead and dead .. ',' .. part or part)
end

-- What a join is after one more way into it has ended.
local function count_join(number, way, part)
  local row = R.joins[number] or decode(call('HGET', R.key, 'j' .. number))
  row[1] = row[1] - 1
  if way == 'LIVE' then row[2] = row[2] + 1 end
  if way == 'BROKEN' then row[3] = row[3] + 1 end
  R.joins[number] = row
  if way ~= 'LIVE' then note_dead(number, part) end
  return row
end

-- engine.join.verdict; a row is {remaining, live, broken, any}.
local function verdict(row)
  if row[4] == 1 and row[2] > 0 then return 'RELEASE' end
  if row[1] > 0 then return 'WAIT' end
  if row[3] > 0 then return 'BREAK' end
  return row[2] > 0 and 'RELEASE' or 'SKIP'
end

-- The steps behind a join that have not begun. `only` is set where there is just one, and one before it.
local function pending_bodies(number, only)
  local bodies, found = only and {only} or decode(call('HGET', R.key, 'b' .. number)), {}
  read_steps(bodies)
  for _, n in ipairs(bodies) do
    if R.steps[n].s[STATUS] == 'PENDING' then found[#found + 1] = R.steps[n] end
  end
  return found
end

-- The steps behind a join become ready; one alone goes to the broker at once if it may.
local function release(number, bodies, only)
  local numbers = {}
  for _, step in ipairs(pending_bodies(number, only)) do
    numbers[#numbers + 1] = step.n
    if bodies == 1 and send_at_once(step) then
      step.s[STATUS] = 'QUEUED'
      change(step)
      touch(step.f[QUEUE])
    else
      make_ready(step)
    end
  end
  if #numbers > 0 then say('task.queued', numbers) end
end

-- Steps do not run, because of what `about` names; returns them as what has ended.
local function skip(bodies, error, onward, about)
  local numbers, arriving, text = {}, {}, error_text(error)
  for _, body in ipairs(bodies) do
    close(body, 'SKIPPED')
    put('x' .. body.n, text)
    numbers[#numbers + 1] = body.n
    arriving[#arriving + 1] = {body, onward, {}}
  end
  if #numbers > 0 then say('task.skipped', numbers, about) end
  return arriving
end

-- Count a step at a join; release what is behind it, or return what was skipped.
local function arrive(step, feed, way)
  local number, parts, bodies, _, only = unpack(feed)
  local row = parts == 1 and {0, way == 'LIVE' and 1 or 0, way == 'BROKEN' and 1 or 0, 0} or count_join(number, way, step.n)
  if parts == 1 and way == 'DEAD' then note_dead(number, step.n) end -- for those who retry the run
  local meaning, because = verdict(row), '"because":' .. encode(step.f[NAME])
  if meaning == 'RELEASE' then
    release(number, bodies, only)
  elseif meaning == 'SKIP' then
    return skip(pending_bodies(number, only), NOT_TAKEN, 'DEAD', because)
  elseif meaning == 'BREAK' then
    local why = 'not run, because ' .. quoted(step) .. ' before it did not complete'
    return skip(pending_bodies(number, only), {'Skipped', why, NO_TRACE, NO_NAMES}, 'BROKEN', because)
  end
  return {}
end

-- The JSON text of the list of outputs of a step's parts.
local function part_outputs(parent)
  local range = call('HGET', R.key, 'k' .. parent)
  if not range then return '[]' end
  local first, last = range:match('^(%d+),(%d+)')
  local texts = {}
  for from = first, last, 1000 do
    local fields = {}
    for n = from, math.min(from + 999, last) do fields[#fields + 1] = 'o' .. n end
    for _, output in ipairs(call('HMGET', R.key, unpack(fields))) do texts[#texts + 1] = output or 'null' end
  end
  return '[' .. table.concat(texts, ',') .. ']'
end

-- A map with max_parallel has a place free for its next part.
local function release_part(parent)
  local range = call('HGET', R.key, 'k' .. parent)
  if not range then return end
  local first, last, at = range:match('^(%d+),(%d+),(%d+)')
  -- Parts begin in order and are never pending again, so that the next one is behind the last that began.
  for n = tonumber(at), tonumber(last) do
    local part = step_of(n)
    if part and part.s[STATUS] == 'PENDING' then
      call('HSET', R.key, 'k' .. parent, first .. ',' .. last .. ',' .. (n + 1))
      make_ready(part)
      say('task.queued', {n})
      return
    end
  end
  call('HSET', R.key, 'k' .. parent, first .. ',' .. last .. ',' .. (last + 1))
end

-- Parts of a step did not complete: it has failed, unless something runs in its place.
local function break_(parent, error)
  local waiting = step_of(parent)
  if waiting.s[STATUS] ~= 'WAITING' then return {}, nil end
  meet(waiting)
  if has_call_instead(waiting) and not R.at[A_ENDING] then
    fall_back(waiting, error)
    return {}, nil
  end
  close(waiting, 'FAILED')
  put('x' .. parent, error_text(error))
  return failed(waiting, error, about(waiting))
end

-- All parts of a step have ended: so has it, with their output. A list is made where it collects no one of them.
local function gather(parent, broken, collects, dead)
  if broken > 0 then
    return break_(parent, {'PartsFailed', broken .. ' of its parts did not complete', NO_TRACE, NO_NAMES})
  end
  local waiting = step_of(parent)
  if waiting.s[STATUS] ~= 'WAITING' then return {}, nil end
  write_puts()
  local output = collects and (call('HGET', R.key, 'o' .. collects) or 'null') or part_outputs(parent)
  close(waiting, 'COMPLETED')
  set_error(waiting, nil)
  put('o' .. parent, output)
  meet(waiting)
  say('task.completed', {parent}, about(waiting))
  return {{waiting, 'LIVE', dead}}, nil
end

-- Count a step that has ended with its parent.
local function count_part(step, way, dead)
  local parent = step_of(step.f[PARENT])
  local s = parent.s
  if s[STATUS] ~= 'WAITING' then return nil end
  s[LEFT], s[BROKEN] = s[LEFT] - 1, s[BROKEN] + (way == 'BROKEN' and 1 or 0)
  change(parent)
  if s[LEFT] == 0 then
    -- Conditions on the output of the parent were looked at where that was made.
    return gather(parent.n, s[BROKEN], s[COLLECTS], s[COLLECTS] == step.n and dead or {})
  end
  if parent.f[MAX_PARALLEL] then release_part(parent.n) end
  return nil
end

-- Count a step that has ended with its parent or with its run.
local function count(step, way, dead)
  if is_last(step) then
    if not step.f[PARENT] then return {}, count_run() end
    local onward, ended = count_part(step, way, dead)
    if onward then return onward, ended end
  end
  return {}, R.at[A_ENDING] and count_run() or nil
end

-- Count what has ended wherever it counts. What is skipped or gathered because of it is counted in turn.
local function settle(arriving)
  local ended_run = nil
  while #arriving > 0 do
    local step, way, dead = unpack(table.remove(arriving))
    for _, feed in ipairs(step.f[FEEDS] ~= 0 and step.f[FEEDS] or {}) do
      local way_in = (way == 'LIVE' and dead[feed[1]]) and 'DEAD' or way
      for _, each in ipairs(arrive(step, feed, way_in)) do arriving[#arriving + 1] = each end
    end
    local onward, ended = count(step, way, dead)
    for _, each in ipairs(onward) do arriving[#arriving + 1] = each end
    ended_run = ended or ended_run
  end
  return ended_run
end

-- Skip steps that no way leads to; returns how the run ended, if it did.
local function shut(numbers)
  read_steps(numbers)
  local bodies = {}
  for at, n in ipairs(numbers) do bodies[at] = R.steps[n] end
  return settle(skip(bodies, NOT_TAKEN, 'DEAD'))
end
