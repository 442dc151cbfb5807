-- Notes: what a running step writes down. c:<run>.<n> holds its checkpoints, p:<run> the progress of all steps of a run,
-- l:<run> their log lines.

-- Whether a claim is the newest of a RUNNING step. Asks for run, n, generation, claim.
local function holds()
  local state = call('HGET', P .. 'r:' .. ARGV[1], 's' .. ARGV[2])
  local s = state and decode(state)
  return s and s[STATUS] == 'RUNNING' and s[GENERATION] == tonumber(ARGV[3]) and s[CLAIMS] == tonumber(ARGV[4])
end

-- Forget what the steps of a run wrote down.
local function drop_notes(run_id, total)
  for first = 0, total - 1, 500 do
    local names = {}
    for n = first, math.min(first + 499, total - 1) do names[#names + 1] = P .. 'c:' .. run_id .. '.' .. n end
    call('UNLINK', unpack(names))
  end
  call('UNLINK', P .. 'p:' .. run_id, P .. 'l:' .. run_id)
end
