-- Run: the one run that a call changes. Rows are read when they are needed, kept decoded, and written at the end.

local R, now

-- Open a run, with one of its steps; nil when there is none of that id.
local function open_run(id, n)
  local key = P .. 'r:' .. id
  local got = call('HMGET', key, 'at', 's' .. (n or ''), 'f' .. (n or ''))
  if not got[1] then return nil end
  R = {id = id, key = key, at = decode(got[1]), at_changed = false, steps = {}, changed = {}, puts = {}, joins = {}}
  if got[2] then R.steps[n] = {n = n, s = decode(got[2]), f = decode(got[3]), text = got[3]} end
  return R
end

-- Read steps that are not known yet, many at a time.
local function read_steps(numbers)
  local missing = {}
  for _, n in ipairs(numbers) do
    if not R.steps[n] then missing[#missing + 1] = n end
  end
  for first = 1, #missing, 500 do
    local fields = {}
    for at = first, math.min(first + 499, #missing) do
      fields[#fields + 1] = 's' .. missing[at]
      fields[#fields + 1] = 'f' .. missing[at]
    end
    local got = call('HMGET', R.key, unpack(fields))
    for at = 1, #fields, 2 do
      local n = missing[first + (at - 1) / 2]
      if got[at] then R.steps[n] = {n = n, s = decode(got[at]), f = decode(got[at + 1]), text = got[at + 1]} end
    end
  end
end

-- One step of the run, or nil.
local function step_of(n)
  if not R.steps[n] then read_steps({n}) end
  return R.steps[n]
end

-- Write a step's state at the end.
local function change(step)
  R.changed[step.n] = step.s
end

-- Write a field at the end.
local function put(field, value)
  R.puts[#R.puts + 1] = field
  R.puts[#R.puts + 1] = value
end

-- Note what went wrong with a step, or that nothing did.
local function set_error(step, error)
  if error then
    put('x' .. step.n, error)
  elseif step.s[ATTEMPTS] + step.s[CRASHES] > 0 or step.s[RESENDS] then -- it may have had one
    call('HDEL', R.key, 'x' .. step.n)
  end
end

-- Whether a step is the task that was submitted alone; only then is its key the id of its run.
local function is_single(step)
  return (step.f[KEY] == 0 and step.f[NAME] or step.f[KEY]) == R.id
end

-- What a step calls itself in messages, as Python's repr() has it.
local function quoted(step)
  return step.f[QUOTED] ~= 0 and step.f[QUOTED] or ("'" .. step.f[NAME] .. "'")
end

-- Append events of the run. Those of a single task are noted in the run itself, which costs no key of their own.
local function append_to_run(worker, entries)
  local at = R.at
  local seq = append(R.id, at[A_SINGLE], worker, entries, now)
  if at[A_SINGLE] then
    at[A_LOG] = (at[A_LOG] and at[A_LOG] .. ',' or '') .. seq
    R.at_changed = true
  else
    call('RPUSH', P .. 'e:' .. R.id, seq)
  end
end

-- Write the fields that were put.
local function write_puts()
  local puts = R.puts
  for first = 1, #puts, 1000 do
    call('HSET', R.key, unpack(puts, first, math.min(first + 999, #puts)))
  end
  R.puts = {}
end

-- Write what has changed.
local function flush()
  local puts = R.puts
  for n, state in pairs(R.changed) do
    puts[#puts + 1] = 's' .. n
    puts[#puts + 1] = encode(state)
  end
  for number, row in pairs(R.joins) do
    puts[#puts + 1] = 'j' .. number
    puts[#puts + 1] = encode(row)
  end
  if R.at_changed then
    puts[#puts + 1] = 'at'
    puts[#puts + 1] = encode(R.at)
  end
  write_puts()
  R.changed, R.joins, R.at_changed = {}, {}, false
end
