-- prune: delete the oldest runs that ended before a time, with all that belongs to them.
--
-- Asks for the time, how many runs at most, how many to leave out. Looks at 200 runs at most, and stops after 1,000
-- steps. Answers {how many were deleted, how many of those looked at were not, whether there may be more}.

local RUNS, STEPS = 200, 1000
-- where the name and the idempotency key are in `run`
local M_NAME, M_KEY = 1, 6

-- Delete the rows of the log that belong to a run.
local function drop_events(run_id, log)
  local list = P .. 'e:' .. run_id
  if log then
    for seq in log:gmatch('%d+') do call('XDEL', P .. 'events', seq .. '-0') end
    return
  end
  for first = 0, call('LLEN', list) - 1, 500 do
    local seqs = call('LRANGE', list, first, first + 499)
    for at, seq in ipairs(seqs) do seqs[at] = seq .. '-0' end
    call('XDEL', P .. 'events', unpack(seqs))
  end
  call('DEL', list)
end

-- Take the steps of a run out of the index of keys, where no newer run has theirs.
local function drop_keys(run_id, total)
  local key = P .. 'r:' .. run_id
  for first = 0, total - 1, 500 do
    local fields = {}
    for n = first, math.min(first + 499, total - 1) do fields[#fields + 1] = 'f' .. n end
    for at, text in ipairs(call('HMGET', key, unpack(fields))) do
      local f = text and decode(text)
      local its = f and (f[KEY] == 0 and f[NAME] or f[KEY])
      if its and call('HGET', P .. 'steps', its) == run_id .. '.' .. (first + at - 1) then call('HDEL', P .. 'steps', its) end
    end
  end
end

-- Delete a run.
local function drop(run_id, at, made)
  drop_events(run_id, at[A_LOG])
  drop_keys(run_id, at[A_NEXT_N])
  drop_notes(run_id, at[A_NEXT_N])
  local name, key = decode(made)[M_NAME], decode(made)[M_KEY]
  if call('HGET', P .. 'learn', name) == run_id then call('HDEL', P .. 'learn', name) end
  if type(key) == 'string' and call('HGET', P .. 'keys', key) == run_id then call('HDEL', P .. 'keys', key) end
  if at[A_JOB] then unindex_run(at[A_JOB], run_id) end
  call('ZREM', P .. 'runs', run_id)
  call('ZREM', P .. 'runs:' .. at[A_STATUS], run_id)
  call('UNLINK', P .. 'r:' .. run_id)
end

register('prune', function()
  local before, most, left_out = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
  local found = call('ZRANGEBYSCORE', P .. 'runs', '-inf', '(' .. ARGV[1], 'LIMIT', left_out, RUNS)
  local dropped, kept, steps = 0, 0, 0
  for _, id in ipairs(found) do
    if dropped >= most or steps >= STEPS then break end
    local got = call('HMGET', P .. 'r:' .. id, 'at', 'run')
    local at = got[1] and decode(got[1])
    if at and at[A_ENDED] and tonumber(at[A_ENDED]) < before then
      drop(id, at, got[2])
      dropped, steps = dropped + 1, steps + at[A_NEXT_N]
    else
      kept = kept + 1
    end
  end
  return {dropped, kept, #found == RUNS or dropped + kept < #found}
end)
