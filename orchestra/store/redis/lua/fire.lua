-- fire: jobs whose time has come, or that a person triggers. Mirrors firing.py.
--
-- Asks for now, window, token, the number of firings, and for each: job, version, the job whose runs these are, how many
-- of them may be open or '', until when it waits for room or '', whether by hand, next_run_at and due_at or '', how many
-- times are missed, their event or '', what an event of those without room says, max_runs or '', error or '', number of
-- runs, then the runs as creating.lua has them. Answers {the ids of the runs that were created, or false, for each;
-- dispatches}.

local F_HEAD = 14

-- Read a firing that begins at a place; returns it and the place behind it.
local function firing_at(at)
  local id, version, of, most_open, waits, by_hand, next_run_at, due_at, missed, event, about, max_runs, error, count =
    unpack(ARGV, at, at + F_HEAD - 1)
  local firing = {
    id = id, version = tonumber(version), of = of, most_open = tonumber(most_open), waits = waits ~= '' and waits,
    by_hand = by_hand == '1', next_run_at = next_run_at ~= '' and next_run_at, due_at = due_at ~= '' and due_at,
    missed = tonumber(missed), event = event, about = about, max_runs = tonumber(max_runs), error = error, runs = {},
  }
  at = at + F_HEAD
  for each = 1, tonumber(count) do
    firing.runs[each] = at
    at = end_of_run(at)
  end
  return firing, at
end

-- The time that a run stands for.
local function time_of(run)
  return ARGV[run + 5]
end

-- Sort runs into those that are created, and those for which there is no room. Those of times that have one are neither.
local function sort(firing)
  local fresh, turned_away = {}, {}
  local room = math.huge
  if firing.most_open and not firing.by_hand then room = firing.most_open - call('SCARD', P .. 'jo:' .. firing.of) end
  for _, run in ipairs(firing.runs) do
    if not call('ZRANGEBYSCORE', P .. 'jt:' .. firing.of, time_of(run), time_of(run), 'LIMIT', 0, 1)[1] then
      local into = #fresh < room and fresh or turned_away
      into[#into + 1] = run
    end
  end
  return fresh, turned_away
end

-- Move a job on.
local function move(firing, at, fresh, turned_away)
  local newest = fresh[#fresh]
  if newest then at[J_LAST], at[J_LAST_RUN] = time_of(newest), ARGV[newest] end
  at[J_VERSION] = at[J_VERSION] + 1
  if not firing.by_hand then
    at[J_NEXT], at[J_DUE], at[J_RUNS] = firing.next_run_at, firing.due_at, at[J_RUNS] + #fresh
    at[J_MISSED] = at[J_MISSED] + firing.missed
    if #turned_away > 0 and firing.waits then
      at[J_NEXT], at[J_DUE] = time_of(turned_away[1]), firing.waits
    else
      at[J_MISSED] = at[J_MISSED] + #turned_away
    end
    if not at[J_NEXT] or (firing.max_runs and at[J_RUNS] >= firing.max_runs) then
      at[J_STATUS], at[J_NEXT], at[J_DUE] = 'ENDED', false, false
    end
    put_job_error(firing.id, firing.error)
  end
  put_job_at(firing.id, at)
end

-- Say which times became no run, and why.
local function tell_missed(firing, turned_away)
  if firing.event ~= '' then append('', false, '', firing.event, now) end
  if #turned_away > 0 and not firing.waits then
    local first, last = time_of(turned_away[1]), time_of(turned_away[#turned_away])
    local data = firing.about .. ',"scheduled_for":' .. first .. ',"until":' .. last .. ',"count":' .. #turned_away
    append('', false, '', '[["job.missed",[],{' .. data .. '}]]', now)
  end
end

-- Those runs of a firing that this very call has created before: its answer was lost.
local function fired_before(firing)
  local found = {}
  for _, run in ipairs(firing.runs) do
    if made_before(ARGV[run]) then found[#found + 1] = run end
  end
  return found
end

-- Whether the rows that were staged for runs are there still; a beat that was frozen for an hour has to begin anew.
local function are_staged(runs)
  for _, run in ipairs(runs) do
    if ARGV[run + 3] ~= '' and call('EXISTS', P .. 'n:' .. ARGV[run + 3]) == 0 then return false end
  end
  return true
end

-- Delete what was staged for runs that are not created.
local function drop_staged(runs)
  for _, run in ipairs(runs) do
    if ARGV[run + 3] ~= '' then call('UNLINK', P .. 'n:' .. ARGV[run + 3]) end
  end
end

-- Fire one job; returns the ids of its new runs, or false when it has changed since it was read.
local function fire(firing)
  local at = job_at(firing.id)
  if not at or at[J_VERSION] ~= firing.version or not are_staged(firing.runs) then
    drop_staged(firing.runs)
    return false
  end
  local fresh, turned_away = sort(firing)
  local ids = {}
  move(firing, at, fresh, turned_away)
  for each, run in ipairs(fresh) do
    add_run(run)
    ids[each] = ARGV[run]
  end
  drop_staged(firing.runs)
  tell_missed(firing, turned_away)
  return ids
end

register('fire', function()
  now, token = ARGV[1], ARGV[3]
  set_window(ARGV[2])
  local answers, again, firing, place = {}, {}, nil, 5
  for each = 1, tonumber(ARGV[4]) do
    firing, place = firing_at(place)
    local before = fired_before(firing)
    if #before > 0 then
      answers[each] = {}
      for at, run in ipairs(before) do answers[each][at], again[#again + 1] = ARGV[run], run end
    else
      answers[each] = fire(firing)
    end
  end
  fill(touched)
  for _, run in ipairs(again) do add_again(run) end
  return {answers, dispatches}
end)
