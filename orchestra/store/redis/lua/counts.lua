-- counts: how many steps of a run have each status. Asks for run. Answers with (status, number) each.

register('counts', function()
  local key, counted, found = P .. 'r:' .. ARGV[1], {}, {}
  local at = call('HGET', key, 'at')
  if not at then return {} end
  local last = decode(at)[A_NEXT_N] - 1
  for first = 0, last, 1000 do
    local fields = {}
    for n = first, math.min(first + 999, last) do fields[#fields + 1] = 's' .. n end
    for _, state in ipairs(call('HMGET', key, unpack(fields))) do
      local status = state and state:match('^%["(%u+)"')
      if status then counted[status] = (counted[status] or 0) + 1 end
    end
  end
  for status, number in pairs(counted) do
    found[#found + 1], found[#found + 2] = status, number
  end
  return found
end, true)
