-- read_steps: the steps of a run by number, without inputs and outputs. Asks for run, status or ''.
--
-- Answers with (n, state, facts, error or '') each.

register('read_steps', function()
  local key, wanted, found = P .. 'r:' .. ARGV[1], '["' .. ARGV[2], {}
  local at = call('HGET', key, 'at')
  if not at then return {} end
  local last = decode(at)[A_NEXT_N] - 1
  for first = 0, last, 500 do
    local fields = {}
    for n = first, math.min(first + 499, last) do
      fields[#fields + 1], fields[#fields + 2], fields[#fields + 3] = 's' .. n, 'f' .. n, 'x' .. n
    end
    local got = call('HMGET', key, unpack(fields))
    for place = 1, #fields, 3 do
      if got[place] and got[place]:sub(1, #wanted) == wanted then
        local end_ = #found
        found[end_ + 1], found[end_ + 2] = first + (place - 1) / 3, got[place]
        found[end_ + 3], found[end_ + 4] = got[place + 1], got[place + 2] or ''
      end
    end
  end
  return found
end, true)
