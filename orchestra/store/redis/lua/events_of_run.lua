-- events_of_run: what happened to one run. Asks for run, cursor, limit. Answers with rows of the log.

-- The numbers of the rows of a single task, which are in the run itself.
local function noted(text, after, limit)
  local found = {}
  for seq in text:gmatch('%d+') do
    if tonumber(seq) > after and #found < limit then found[#found + 1] = seq end
  end
  return found
end

-- The numbers of the rows of a workflow; they are in order.
local function listed(log, after, limit)
  local low, high = 0, call('LLEN', log)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if tonumber(call('LINDEX', log, middle)) > after then high = middle else low = middle + 1 end
  end
  return call('LRANGE', log, low, low + limit - 1)
end

register('events_of_run', function()
  local after, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
  local at = call('HGET', P .. 'r:' .. ARGV[1], 'at')
  if not at or limit <= 0 then return {} end
  local text, found = decode(at)[A_LOG], {}
  for _, seq in ipairs(text and noted(text, after, limit) or listed(P .. 'e:' .. ARGV[1], after, limit)) do
    local row = call('XRANGE', P .. 'events', seq, seq)[1]
    if row then put_row(found, row) end
  end
  return found
end, true)
