-- record_onward: record, and claim for the same worker the first step that it hands on and that the worker goes on
-- with. Mirrors Onward.takes().
--
-- Asks for worker, queue, priority, targets (a line each, with one more before and after), and what record asks for. Answers what record
-- does, and then, if there is one, the step as it would be published and the answer of claim.

-- The place among what is handed on of what the worker goes on with.
local function place_of(found, run_id, queue, priority, targets)
  for at = 1, #found, 4 do
    if found[at] == run_id then
      local f = decode(found[at + 3])
      if f[QUEUE] == queue and f[PRIORITY] <= priority and not f[TIMEOUT]
        and targets:find('\n' .. f[TARGET] .. '\n', 1, true) then
        return at
      end
    end
  end
end

-- What was claimed when this was asked for the first time: {run, n, generation, facts}.
local function claimed_before(worker, run_id, token)
  for _, name in ipairs(call('ZRANGE', P .. 'h:' .. worker, 0, -1)) do
    local n, generation = name:match('^' .. run_id:gsub('%p', '%%%0') .. '%.(%d+)%.(%d+)%.%d+$')
    local step = n and step_of(tonumber(n))
    if step and step.s[TOKEN] == token then return {run_id, n, generation, step.text} end
  end
end

register('record_onward', function()
  local keys, worker, queue, priority, targets = {P}, unpack(ARGV, 1, 4)
  begin(keys, {unpack(ARGV, 5)})
  local answer = works.record()
  if not answer then return false end
  local run_id, at, its_token, found = R.id, now, ARGV[6] .. '>', answer[2]
  local row
  if answer[3] then
    row = claimed_before(worker, run_id, its_token)
  else
    local place = place_of(found, run_id, queue, tonumber(priority), targets)
    if place then
      row = {unpack(found, place, place + 3)}
      for _ = 1, 4 do table.remove(found, place) end
    end
  end
  if not row then return answer end
  begin(keys, {row[1], row[2], row[3], worker, at, its_token})
  return {answer[1], found, row, works.claim()}
end)
