-- depth: how many steps are ready, by queue. Answers with (queue, number) each.

register('depth', function()
  local found = {}
  for _, queue in ipairs(call('HKEYS', P .. 'open')) do
    local number = call('ZCARD', P .. 'w:' .. queue) + call('ZCARD', P .. 'q:' .. queue)
    if number > 0 then found[#found + 1], found[#found + 2] = queue, number end
  end
  return found
end, true)
