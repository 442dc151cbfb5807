-- count_steps: how many steps some runs have. Asks for how many to leave out. Answers {steps, looked at}.

register('count_steps', function()
  local found, steps = call('ZRANGE', P .. 'runs', ARGV[1], ARGV[1] + 999), 0
  for _, id in ipairs(found) do
    local at = call('HGET', P .. 'r:' .. id, 'at')
    if at then steps = steps + decode(at)[A_NEXT_N] end
  end
  return {steps, #found}
end, true)
