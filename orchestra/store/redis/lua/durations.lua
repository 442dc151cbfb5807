-- durations: what the steps of the run of a workflow took that completed last. Asks for the name, and how many steps.
--
-- Answers with (state, facts) of those steps that have both: the texts are looked into by who asked.

register('durations', function()
  local run_id, found = call('HGET', P .. 'learn', ARGV[1]), {}
  local at = run_id and call('HGET', P .. 'r:' .. run_id, 'at')
  if not at then return found end
  local last = math.min(decode(at)[A_NEXT_N], tonumber(ARGV[2])) - 1
  for first = 0, last, 500 do
    local fields = {}
    for n = first, math.min(first + 499, last) do fields[#fields + 1], fields[#fields + 2] = 's' .. n, 'f' .. n end
    local got = call('HMGET', P .. 'r:' .. run_id, unpack(fields))
    for place = 1, #fields, 2 do
      if got[place] and got[place + 1] and got[place]:sub(1, 12) == '["COMPLETED"' then
        found[#found + 1], found[#found + 2] = got[place], got[place + 1]
      end
    end
  end
  return found
end, true)
