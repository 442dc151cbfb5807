-- find_step: the step with a key in the newest run that has one. Asks for the key.
--
-- A single task is found by the id of its run, which is its key, without an index. Answers {run, n, state, facts, input,
-- output, error}, or nothing.

local FIELDS = {'s', 'f', 'i', 'o', 'x'}

-- A step with all that is known of it.
local function read(run_id, n)
  local fields = {}
  for at, field in ipairs(FIELDS) do fields[at] = field .. n end
  local got = call('HMGET', P .. 'r:' .. run_id, unpack(fields))
  return got[1] and {run_id, n, got[1], got[2], got[3], got[4], got[5]} or nil
end

register('find_step', function()
  local found, alone
  local indexed = call('HGET', P .. 'steps', ARGV[1])
  if indexed then
    local run_id, n = indexed:match('^(.*)%.(%d+)$')
    found = read(run_id, n)
  end
  local at = call('HGET', P .. 'r:' .. ARGV[1], 'at')
  if at and decode(at)[A_SINGLE] then alone = read(ARGV[1], '0') end
  if not found then return alone or false end
  if not alone then return found end
  local its, other = tonumber(decode(alone[4])[CREATED]), tonumber(decode(found[4])[CREATED])
  if its > other or (its == other and alone[1] > found[1]) then return alone end
  return found
end, true)
