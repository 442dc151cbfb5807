-- Creating: runs with all their steps and joins, as the arguments of a call describe them.
--
-- Each run is: id, key, fingerprint, staged name, job, the time that it stands for, number of its arguments that follow,
-- events, then `at`, `run`, `res`, created, number of steps, ready, open, index, and fields with values.

-- how many arguments stand before those that are counted, and how many of these before the fields
local HEAD, BODY = 8, 8
-- by which a run knows the call that made it
local token

-- Where the arguments of the run that begins at a place end.
local function end_of_run(at)
  return at + HEAD + tonumber(ARGV[at + 6])
end

-- Whether a run was made by this very call, whose answer was lost.
local function made_before(id)
  local at = call('HGET', P .. 'r:' .. id, 'at')
  return at and decode(at)[A_TOKEN] == token
end

-- What is written elsewhere about a new run, of which `R` holds how it stands.
local function note_run(at)
  local id, key, _, _, job, scheduled_for = unpack(ARGV, at, at + 5)
  local created = ARGV[at + HEAD + 3]
  call('ZADD', P .. 'runs', created, id)
  call('ZADD', P .. 'runs:' .. R.at[A_STATUS], created, id)
  if key ~= '' then call('HSET', P .. 'keys', key, id) end
  if R.at[A_DEADLINE] then call('ZADD', P .. 'timed', R.at[A_DEADLINE], 'd' .. id) end
  if R.at[A_EXPIRES] then call('ZADD', P .. 'timed', R.at[A_EXPIRES], 'x' .. id) end
  if job ~= '' then index_run(job, scheduled_for, created, id) end
end

-- Create the only run of a call, if it is of one step: what was not waiting need not be picked from what waits.
local function add_task(at)
  local id, events = ARGV[at], ARGV[at + 7]
  local header, run, res, created, steps, ready, _, index = unpack(ARGV, at + HEAD, at + HEAD + BODY - 1)
  if steps ~= '1' or ARGV[at + 3] ~= '' then return false end
  R = {id = id, key = P .. 'r:' .. id, at = decode(header), puts = {}, changed = {}, joins = {}, steps = {}}
  R.at[A_TOKEN], R.at_changed = token, true
  local from, to = at + HEAD + BODY, end_of_run(at) - 1
  R.puts = {'s0', '["QUEUED"' .. FRESH, 'run', run, 'res', res, unpack(ARGV, from, to)}
  append_to_run('', events)
  flush()
  local queue, priority, rank = unpack(decode(ready)[1])
  call('HINCRBY', P .. 'open', queue, 1)
  local f = {[QUEUE] = queue, [PRIORITY] = priority, [RANK] = rank, [CREATED] = created}
  local step = {n = 0, s = {[GENERATION] = 0}, f = f, text = ARGV[from + 1]}
  if not send_at_once(step) then
    enqueue(step)
    touch(queue)
  end
  note_run(at)
  index_keys(id, index)
  return true
end

-- Create one run.
local function add_run(at)
  local id, staged, events = ARGV[at], ARGV[at + 3], ARGV[at + 7]
  local header, run, res, _, steps, ready, open, index = unpack(ARGV, at + HEAD, at + HEAD + BODY - 1)
  local name = P .. 'r:' .. id
  if staged ~= '' then
    call('RENAME', P .. 'n:' .. staged, name)
    call('PERSIST', name)
  end
  local last = end_of_run(at) - 1
  for first = at + HEAD + BODY, last, 1000 do call('HSET', name, unpack(ARGV, first, math.min(first + 999, last))) end
  R = {id = id, key = name, at = decode(header), puts = {}, changed = {}, joins = {}, steps = {}}
  add_states(name, id, 0, tonumber(steps), ready, open)
  put('run', run)
  put('res', res)
  R.at[A_TOKEN], R.at_changed = token, true
  append_to_run('', events)
  flush()
  note_run(at)
  index_keys(id, index)
end

-- The answer was lost: what of the run is with the broker is to be published again.
local function add_again(at)
  local id = ARGV[at]
  local ready = decode(ARGV[at + HEAD + 5])
  for _, group in ipairs(ready) do
    for _, n in ipairs(group[4]) do
      local got = call('HMGET', P .. 'r:' .. id, 's' .. n, 'f' .. n)
      local state, f = decode(got[1]), decode(got[2])
      if call('ZSCORE', P .. 'q:' .. f[QUEUE], member_of(id, n, f[CREATED])) then
        dispatch(id, n, state[GENERATION], got[2])
      end
    end
  end
end
