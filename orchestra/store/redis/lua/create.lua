-- create: runs with all their steps and joins. All are looked at before the first is written.
--
-- Asks for now, window, token, the number of runs, and for each run: id, key, fingerprint, staged name, number of its
-- arguments that follow, events, then `at`, `run`, `res`, created, number of steps, ready, open, index, and fields with values.
-- Answers {'', states, dispatches}, where a state is '' or the id of the earlier run; or {kind of conflict, place, run}.

local token
local HEAD, BODY = 6, 8

-- Where the arguments of each run begin.
local function places()
  local found, at = {}, 5
  for each = 1, tonumber(ARGV[4]) do
    found[each] = at
    at = at + HEAD + tonumber(ARGV[at + 4])
  end
  return found
end

-- The run that has this key or id: its id, its fingerprint, and whether it has the key.
local function taken(id, key, keys, ids)
  local by_key = key ~= '' and (keys[key] or call('HGET', P .. 'keys', key))
  if by_key then
    local made = ids[by_key] or decode(call('HGET', P .. 'r:' .. by_key, 'run'))[7] or ''
    return by_key, made, true
  end
  if ids[id] or call('EXISTS', P .. 'r:' .. id) == 1 then return id, nil, false end
end

-- Whether a run was made by this very call, whose answer was lost.
local function made_before(id)
  local at = call('HGET', P .. 'r:' .. id, 'at')
  return at and decode(at)[A_TOKEN] == token
end

-- Look at all runs; returns what becomes of each, or the conflict of one.
local function look(starts)
  local states, keys, ids = {}, {}, {}
  for each, at in ipairs(starts) do
    local id, key, fingerprint, staged = unpack(ARGV, at, at + 3)
    local found, its_fingerprint, by_key = taken(id, key, keys, ids)
    if not found or (found == id and made_before(id)) then
      if not found and staged ~= '' and call('EXISTS', P .. 'n:' .. staged) == 0 then return nil, {'lost', each, id} end
      states[each] = found and 'again' or ''
      ids[id] = fingerprint
      if key ~= '' then keys[key] = id end
    elseif not by_key or its_fingerprint ~= fingerprint then
      return nil, {by_key and 'key' or 'id', each, found}
    else
      states[each] = found
    end
  end
  return states
end

-- Create one run.
local function add_run(at)
  local id, key, _, staged = unpack(ARGV, at, at + 3)
  local events = ARGV[at + 5]
  local header, run, res, created, steps, ready, open, index = unpack(ARGV, at + HEAD, at + HEAD + BODY - 1)
  local name = P .. 'r:' .. id
  if staged ~= '' then
    call('RENAME', P .. 'n:' .. staged, name)
    call('PERSIST', name)
  end
  local last = at + HEAD + tonumber(ARGV[at + 4]) - 1
  for first = at + HEAD + BODY, last, 1000 do call('HSET', name, unpack(ARGV, first, math.min(first + 999, last))) end
  R = {id = id, key = name, at = decode(header), puts = {}, changed = {}, joins = {}, steps = {}}
  add_states(name, id, 0, tonumber(steps), ready, open)
  put('run', run)
  put('res', res)
  R.at[A_TOKEN], R.at_changed = token, true
  append_to_run('', events)
  flush()
  call('ZADD', P .. 'runs', created, id)
  call('ZADD', P .. 'runs:' .. R.at[A_STATUS], created, id)
  if key ~= '' then call('HSET', P .. 'keys', key, id) end
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

register('create', function()
  now, token = ARGV[1], ARGV[3]
  set_window(ARGV[2])
  local starts = places()
  local states, conflict = look(starts)
  if conflict then return conflict end
  for each, at in ipairs(starts) do
    if states[each] == '' then add_run(at) end
  end
  fill(touched)
  for each, at in ipairs(starts) do
    if states[each] == 'again' then
      add_again(at)
      states[each] = ''
    end
  end
  return {'', states, dispatches}
end)
