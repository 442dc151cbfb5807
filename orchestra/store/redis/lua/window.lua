-- Window: ready steps, those that wait here (w:<queue>) and those that are with the broker (q:<queue>).
--
-- Both hold the same members: time of making, run and number, of fixed width at both ends, so that equal scores are in
-- the order of age. The score of what waits is made of priority and rank, that of what was sent of priority and time.

local BAND, SENT_BAND = 1e9, 1e11
local dispatches, window, windows = {}, 0, {}

-- Note how many steps may be with the broker: a floor and, after a space, JSON of the queues that may have another number.
local function set_window(text)
  local floor, others = text:match('^(%d+) ?(.*)$')
  window, windows = tonumber(floor), others ~= '' and decode(others) or {}
end

-- How many steps of a queue may be with the broker.
local function window_of(queue)
  return windows[queue] or window
end

-- The name of a step in the sets of its queue.
local function member_of(run_id, n, created)
  return string.format('%020.9f|%s|%08d', created, run_id, n)
end

-- The run and the number that a member names.
local function named_by(member)
  return member:sub(22, -10), tonumber(member:sub(-8))
end

-- Let a ready step wait.
local function enqueue(step)
  if R.at[A_STATUS] == 'PAUSED' then return end
  local f = step.f
  call('ZADD', P .. 'w:' .. f[QUEUE], f[PRIORITY] * BAND - f[RANK], member_of(R.id, step.n, f[CREATED]))
end

-- Since when a step is ready: its making where it waited for nothing, else the sending of its message, or ''.
local function ready_since(state, f, sent)
  local before = state[GENERATION] + state[ATTEMPTS] + state[CRASHES]
  if not f[WAITS_FOR] and not f[PARENT] and before == 0 then return f[CREATED] end
  return sent and string.format('%.6f', tonumber(sent) - f[PRIORITY] * SENT_BAND) or ''
end

-- A step is ready no more: it was claimed, or ended.
local function unqueue(run_id, n, f)
  local member = member_of(run_id, n, f[CREATED])
  if call('ZREM', P .. 'q:' .. f[QUEUE], member) == 0 then call('ZREM', P .. 'w:' .. f[QUEUE], member) end
end

-- Add what is to be published for a step.
local function dispatch(run_id, n, generation, facts)
  local at = #dispatches
  dispatches[at + 1], dispatches[at + 2], dispatches[at + 3], dispatches[at + 4] = run_id, n, generation, facts
end

-- How many steps of this priority or better are with the broker, counted up to the window.
local function count_sent(queue, priority)
  local sent = call('ZCOUNT', P .. 'q:' .. queue, '-inf', '(' .. string.format('%.0f', (priority + 1) * SENT_BAND))
  return math.min(sent, window_of(queue))
end

-- A step that has just become ready goes to the broker at once, if nothing waits and the window has room.
local function send_at_once(step)
  if R.at[A_STATUS] == 'PAUSED' then return false end
  local f = step.f
  if call('ZCARD', P .. 'w:' .. f[QUEUE]) > 0 or count_sent(f[QUEUE], f[PRIORITY]) >= window_of(f[QUEUE]) then return false end
  local score = string.format('%.6f', f[PRIORITY] * SENT_BAND + tonumber(now))
  call('ZADD', P .. 'q:' .. f[QUEUE], score, member_of(R.id, step.n, f[CREATED]))
  dispatch(R.id, step.n, step.s[GENERATION], step.text)
  return true
end

-- Send the best waiting steps of one priority; returns how many.
local function pick(queue, priority, room)
  local members = call('ZRANGEBYSCORE', P .. 'w:' .. queue, '-inf', string.format('%.0f', priority * BAND), 'LIMIT', 0, room)
  local score = string.format('%.6f', priority * SENT_BAND + tonumber(now))
  for first = 1, #members, 1000 do
    local last, sent = math.min(first + 999, #members), {}
    for at = first, last do
      sent[#sent + 1], sent[#sent + 2] = score, members[at]
    end
    call('ZREM', P .. 'w:' .. queue, unpack(members, first, last))
    call('ZADD', P .. 'q:' .. queue, unpack(sent))
  end
  for _, member in ipairs(members) do
    local run_id, n = named_by(member)
    local got = call('HMGET', P .. 'r:' .. run_id, 's' .. n, 'f' .. n)
    if got[1] then dispatch(run_id, n, decode(got[1])[GENERATION], got[2]) end
  end
  return #members
end

-- Send the best waiting steps of each queue as far as its window has room for their priority.
local function fill(queues)
  for _, queue in ipairs(queues) do
    while true do
      local best = call('ZRANGE', P .. 'w:' .. queue, 0, 0, 'WITHSCORES')
      if not best[1] then break end
      local priority = math.floor(tonumber(best[2]) / BAND) + 1
      local room = window_of(queue) - count_sent(queue, priority)
      if room <= 0 or pick(queue, priority, room) >= room then break end
    end
  end
end
