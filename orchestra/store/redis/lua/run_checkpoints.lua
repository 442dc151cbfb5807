-- run_checkpoints: what was saved of some steps of a run. Asks for run, number of the first step to look at, and where
-- only one key is wanted, that key.
--
-- Answers {(n, key, value, ...), number of the step to go on with or -1}.

local function saved_of(step, only)
  local name = P .. 'c:' .. step
  if not only then return call('HGETALL', name) end
  local value = call('HGET', name, only)
  return value and {only, value} or {}
end

register('run_checkpoints', function()
  local found, first, only = {}, tonumber(ARGV[2]), ARGV[3]
  local at = call('HGET', P .. 'r:' .. ARGV[1], 'at')
  local total = at and decode(at)[A_NEXT_N] or 0
  local last = math.min(first + 499, total - 1)
  for n = first, last do
    local saved = saved_of(ARGV[1] .. '.' .. n, only)
    for place = 1, #saved, 2 do
      local end_ = #found
      found[end_ + 1], found[end_ + 2], found[end_ + 3] = n, saved[place], saved[place + 1]
    end
  end
  return {found, last + 1 < total and last + 1 or -1}
end, true)
