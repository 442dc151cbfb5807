-- prunable: how many runs ended before a time. Asks for the time, how many to leave out. Answers {number, looked at}.

register('prunable', function()
  local before, number = tonumber(ARGV[1]), 0
  local found = call('ZRANGEBYSCORE', P .. 'runs', '-inf', '(' .. ARGV[1], 'LIMIT', ARGV[2], 1000)
  for _, id in ipairs(found) do
    local at = call('HGET', P .. 'r:' .. id, 'at')
    local ended = at and decode(at)[A_ENDED]
    if ended and tonumber(ended) < before then number = number + 1 end
  end
  return {number, #found}
end, true)
