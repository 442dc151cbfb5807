-- claim: give a QUEUED step to a worker, or say why not.
--
-- Asks for run, n, generation, worker, now, token. Answers {claim, attempts, crashes, facts, input, outputs,
-- predecessors, ready since or ''}, the outputs as a list of (n, output), the predecessors as one of
-- (n, facts, output); or {0, status or ''}.

local key

-- The outputs that the templates of the step name.
local function outputs(needs)
  local found = {}
  for first = 1, #needs, 1000 do
    local fields = {}
    for at = first, math.min(first + 999, #needs) do fields[#fields + 1] = 'o' .. needs[at] end
    for at, output in ipairs(call('HMGET', key, unpack(fields))) do
      if output then
        found[#found + 1] = needs[first + at - 1]
        found[#found + 1] = output
      end
    end
  end
  return found
end

-- The predecessors on the ways that were taken into the join before the step.
local function predecessors(number)
  local got = call('HMGET', key, 'p' .. number, 'd' .. number)
  local dead, parts = {}, {}
  for part in (got[2] or ''):gmatch('%d+') do dead[part] = true end
  for part in got[1]:gmatch('%d+') do
    if not dead[part] then parts[#parts + 1] = part end
  end
  return parts
end

-- Names and outputs of predecessors; their names are read from their facts by the client.
local function named_outputs(parts)
  local found = {}
  for first = 1, #parts, 500 do
    local fields = {}
    for at = first, math.min(first + 499, #parts) do
      fields[#fields + 1], fields[#fields + 2] = 'f' .. parts[at], 'o' .. parts[at]
    end
    local rows = call('HMGET', key, unpack(fields))
    for at = 1, #fields, 2 do
      if rows[at + 1] then
        local last = #found
        found[last + 1], found[last + 2], found[last + 3] = parts[first + (at - 1) / 2], rows[at], rows[at + 1]
      end
    end
  end
  return found
end

-- What the worker needs to run the step.
local function answer(state, f, facts, input, ready)
  return {
    state[CLAIMS], state[ATTEMPTS], state[CRASHES], facts, input,
    f[NEEDS] ~= 0 and outputs(f[NEEDS]) or {},
    f[INHERITS] and named_outputs(f[INHERITS] == 0 and predecessors(f[WAITS_FOR]) or f[INHERITS]) or {},
    ready,
  }
end

register('claim', function()
  local run_id, n, generation, worker, at, token = unpack(ARGV)
  key = P .. 'r:' .. run_id
  local got = call('HMGET', key, 's' .. n, 'f' .. n, 'i' .. n, 'at')
  if not got[1] then return {0, ''} end
  local state = decode(got[1])
  if state[STATUS] == 'RUNNING' and state[TOKEN] == token then
    return answer(state, decode(got[2]), got[2], got[3], '') -- asked again, since the answer was lost
  end
  if state[STATUS] ~= 'QUEUED' or state[GENERATION] ~= tonumber(generation) then return {0, state[STATUS]} end
  if got[4]:sub(1, 9) == '["PAUSED"' then return {0, state[STATUS]} end
  local f = decode(got[2])
  local ready = ready_since(state, f, false)
  if ready == '' then
    ready = ready_since(state, f, call('ZSCORE', P .. 'q:' .. f[QUEUE], member_of(run_id, n, f[CREATED])))
  end
  unqueue(run_id, n, f)
  state[STATUS], state[CLAIMS], state[WORKER], state[STARTED], state[TOKEN] = 'RUNNING', state[CLAIMS] + 1, worker, at, token
  call('HSET', key, 's' .. n, encode(state))
  call('ZADD', P .. 'h:' .. worker, at, run_id .. '.' .. n .. '.' .. generation .. '.' .. state[CLAIMS])
  call('SADD', P .. 'holders', worker)
  return answer(state, f, got[2], got[3], ready)
end)
