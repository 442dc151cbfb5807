-- Steering: what pause, resume, retry, fork and deadlines have in common. Mirrors orchestra/store/steering.py.

-- A run is listed under another status.
local function move_run(status)
  call('ZREM', P .. 'runs:' .. R.at[A_STATUS], R.id)
  call('ZADD', P .. 'runs:' .. status, R.at[A_CREATED], R.id)
  R.at[A_STATUS], R.at_changed = status, true
end

-- Give joins their counts: [number, remaining, live, dead parts as text] each.
local function set_joins(joins)
  for _, each in ipairs(decode(joins)) do
    local text = call('HGET', R.key, 'j' .. each[1])
    if text then -- no join of one part and one body has a row
      local row = decode(text)
      row[1], row[2], row[3] = each[2], each[3], 0
      R.joins[each[1]] = row
    end
    if each[4] == '' then call('HDEL', R.key, 'd' .. each[1]) else put('d' .. each[1], each[4]) end
  end
end

-- Let steps of the run be open again: [n, status, parts left or false] each; their states are written by the caller.
local function open_again(list)
  local ready = {}
  for _, each in ipairs(list) do
    local step = step_of(each[1])
    call('HDEL', R.key, 'x' .. step.n, 'o' .. step.n)
    call('HINCRBY', P .. 'open', step.f[QUEUE], 1)
    change(step)
    if each[2] == 'QUEUED' then
      ready[#ready + 1] = step.n
      make_ready(step)
    end
  end
  if #ready > 0 then say('task.queued', ready) end
end
