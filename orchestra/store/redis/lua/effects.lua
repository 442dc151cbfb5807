-- Effects: what a transaction does to its run beside its main change. Mirrors orchestra/store/effects.py.

local entries, touched, closed, single = {}, {}, {}, false

-- Add an event of the run. `data` is the inside of a JSON object.
local function say(event, numbers, data)
  entries[#entries + 1] = '["' .. event .. '",' .. numbers_text(numbers) .. ',{' .. (data or '') .. '}]'
end

-- The windows of this queue may have room.
local function touch(queue)
  if not touched[queue] then
    touched[queue] = true
    touched[#touched + 1] = queue
  end
end

-- A step is concerned: the first one of a single run says by its key that the run is one.
local function meet(step)
  single = single or is_single(step)
  return step
end

-- What the events of a step begin with.
local function about(step)
  return '"name":' .. encode(step.f[NAME]) .. ',"attempt":' .. step.s[ATTEMPTS]
end

-- Say that a claim has started, if that is not in the log. `attempt` is the number of the attempt that it is.
local function say_started(step, attempt)
  local s = step.s
  if s[ANNOUNCED] >= s[CLAIMS] then return false end
  s[ANNOUNCED] = s[CLAIMS]
  say('task.started', {step.n}, '"name":' .. encode(step.f[NAME]) .. ',"attempt":' .. attempt .. ',"claim":' .. s[CLAIMS]
    .. ',"worker":' .. encode(s[WORKER] or '') .. ',"at":' .. (s[STARTED] or now))
  return true
end

-- How a claim is called in the set of its worker.
local function held_name(step)
  return R.id .. '.' .. step.n .. '.' .. step.s[GENERATION] .. '.' .. step.s[CLAIMS]
end

-- A step leaves its status: take it out of the set that shows it.
local function leave(step)
  local status = step.s[STATUS]
  if status == 'QUEUED' then
    unqueue(R.id, step.n, step.f)
  elseif status == 'RUNNING' then
    call('ZREM', P .. 'h:' .. step.s[WORKER], held_name(step))
  elseif status == 'RETRYING' then
    call('ZREM', P .. 'due', R.id .. '.' .. step.n)
  end
  change(step)
end

-- A step has ended.
local function close(step, status)
  leave(step)
  step.s[STATUS], step.s[ENDED] = status, now
  local queue = step.f[QUEUE]
  if not closed[queue] then closed[#closed + 1] = queue end
  closed[queue] = (closed[queue] or 0) + 1
end

-- A step is ready, and waits.
local function make_ready(step)
  step.s[STATUS] = 'QUEUED'
  change(step)
  enqueue(step)
  touch(step.f[QUEUE])
end

-- Write what has changed of the run, and its events.
local function write_run()
  if #entries > 0 then append_to_run('', '[' .. table.concat(entries, ',') .. ']') end
  entries = {}
  flush()
end

-- Write everything, and fill the windows; the last thing in a transaction.
local function commit()
  write_run()
  for _, queue in ipairs(closed) do
    call('HINCRBY', P .. 'open', queue, -closed[queue])
  end
  fill(touched)
  return dispatches
end
