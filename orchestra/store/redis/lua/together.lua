-- together: claims and records, one after the other; and last, for a worker that goes on by itself, claims of what the
-- completions hand on. Mirrors together() of transitions.py and Onward.takes().
--
-- Asks for most, worker, queue, priority, targets (a line each, with one more before and after; all five are '' where
-- nothing is gone on with), and then for each claim or record for its name, the number of its arguments, and these.
-- Answers with the list of their answers. That of a record has at its third place what was claimed: for each step a row
-- as it would be published, and the answer of claim.

-- The places among what is handed on of what the worker goes on with, the last one first.
local function places_of(found, run_id, queue, priority, targets, most)
  local places = {}
  for at = 1, #found, 4 do
    if #places < most and found[at] == run_id then
      local f = decode(found[at + 3])
      if f[QUEUE] == queue and f[PRIORITY] <= priority and not f[TIMEOUT]
        and targets:find('\n' .. f[TARGET] .. '\n', 1, true) then
        table.insert(places, 1, at)
      end
    end
  end
  return places
end

-- Take out what is handed on and gone on with.
local function taken_out(found, places)
  local rows = {}
  for _, place in ipairs(places) do
    table.insert(rows, 1, {unpack(found, place, place + 3)})
    for _ = 1, 4 do table.remove(found, place) end
  end
  return rows
end

-- What was claimed when this was asked for the first time.
local function claimed_before(worker, run_id, its_token)
  local rows = {}
  for _, name in ipairs(call('ZRANGE', P .. 'h:' .. worker, 0, -1)) do
    local n, generation = name:match('^' .. run_id:gsub('%p', '%%%0') .. '%.(%d+)%.(%d+)%.%d+$')
    local got = n and call('HMGET', P .. 'r:' .. run_id, 's' .. n, 'f' .. n)
    if got and got[1] and decode(got[1])[TOKEN] == its_token then
      rows[#rows + 1] = {run_id, n, generation, got[2]}
    end
  end
  return rows
end

-- Claim what is gone on with after one record; returns how many were.
local function go_on(keys, given, answer, most, worker, queue, priority, targets)
  local run_id, at, its_token = given[1], given[5], given[6] .. '>'
  local rows
  if answer[3] then
    rows = claimed_before(worker, run_id, its_token)
  else
    rows = taken_out(answer[2], places_of(answer[2], run_id, queue, priority, targets, most))
  end
  local claimed = {}
  for _, row in ipairs(rows) do
    begin(keys, {row[1], row[2], row[3], worker, at, its_token})
    claimed[#claimed + 1], claimed[#claimed + 2] = row, works.claim()
  end
  answer[3] = claimed
  return #rows
end

register('together', function()
  local keys, given, answers, records, at = {P}, ARGV, {}, {}, 6
  while at <= #given do
    local last = at + 1 + tonumber(given[at + 1])
    local args = {unpack(given, at + 2, last)}
    begin(keys, args)
    local answer = works[given[at]]()
    answers[#answers + 1] = answer
    if answer and given[at] == 'record' then records[#records + 1] = {args, answer} end
    at = last + 1
  end
  local room, worker, queue, priority, targets = unpack(given, 1, 5)
  room, priority = tonumber(room) or 0, tonumber(priority)
  for _, each in ipairs(room > 0 and records or {}) do
    local args, answer = each[1], each[2]
    if args[8] == 'completed' then
      room = room - go_on(keys, args, answer, room, worker, queue, priority, targets)
    end
  end
  return answers
end)
