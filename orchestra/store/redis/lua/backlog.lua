-- backlog: what is ready, by queue and priority. Answers with (queue, priority, number, sent since or '') each.

register('backlog', function()
  local found = {}
  for _, queue in ipairs(call('HKEYS', P .. 'open')) do
    local waiting, sent = P .. 'w:' .. queue, P .. 'q:' .. queue
    for priority = 1, 10 do
      local first = string.format('%.0f', priority * SENT_BAND)
      local behind = '(' .. string.format('%.0f', (priority + 1) * SENT_BAND)
      local number = call('ZCOUNT', sent, first, behind) + call('ZCOUNT', waiting,
        '(' .. string.format('%.0f', (priority - 1) * BAND), string.format('%.0f', priority * BAND))
      if number > 0 then
        local oldest = call('ZRANGEBYSCORE', sent, first, behind, 'WITHSCORES', 'LIMIT', 0, 1)[2]
        local since = oldest and string.format('%.6f', tonumber(oldest) - priority * SENT_BAND) or ''
        local at = #found
        found[at + 1], found[at + 2], found[at + 3], found[at + 4] = queue, priority, number, since
      end
    end
  end
  return found
end, true)
