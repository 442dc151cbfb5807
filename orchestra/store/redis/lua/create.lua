-- create: runs with all their steps and joins. All are looked at before the first is written.
--
-- Asks for now, window, token, the number of runs, and the runs as creating.lua has them.
-- Answers {'', states, dispatches}, where a state is '' or the id of the earlier run; or {kind of conflict, place, run}.

-- Where the arguments of each run begin.
local function places()
  local found, at = {}, 5
  for each = 1, tonumber(ARGV[4]) do
    found[each] = at
    at = end_of_run(at)
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

register('create', function()
  now, token = ARGV[1], ARGV[3]
  set_window(ARGV[2])
  local starts = places()
  local states, conflict = look(starts)
  if conflict then return conflict end
  local alone = #starts == 1
  for each, at in ipairs(starts) do
    if states[each] == '' and not (alone and add_task(at)) then add_run(at) end
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
