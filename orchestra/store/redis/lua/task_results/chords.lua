-- begin: a chord is about to be sent. Asks for group, header or '', when it expires.
register('begin', function()
  local group = ARGV[1]
  local key = P .. 'tc:' .. group
  call('UNLINK', P .. 'tp:' .. group)
  call('ZREM', P .. 'due', group)
  call('HDEL', key, 'size', 'grown', 'header', 'callback')
  call('HSET', key, 'status', 'OPEN')
  call('HINCRBY', key, 'claims', 1)
  if ARGV[2] ~= '' then call('HSET', key, 'header', ARGV[2]) end
  expire_chord(group, ARGV[3])
end)

-- size: how many parts it has. Asks for group, size, when it expires.
register('size', function()
  local key = P .. 'tc:' .. ARGV[1]
  local status = call('HGET', key, 'status')
  if status == 'DONE' then call('HDEL', key, 'grown') end
  call('HSET', key, 'size', ARGV[2])
  if status ~= 'COMPLETE' then call('HSET', key, 'status', 'OPEN') end
  expire_chord(ARGV[1], ARGV[3])
end)

-- grow: one part more. Asks for group, when it expires, a token: a call that is sent twice counts once.
register('grow', function()
  local key = P .. 'tc:' .. ARGV[1]
  if not call('SET', P .. 'done:' .. ARGV[3], 1, 'NX', 'EX', 60) then return end
  call('HSETNX', key, 'status', 'OPEN')
  call('HINCRBY', key, 'grown', 1)
  expire_chord(ARGV[1], ARGV[2])
end)

-- complete: what is to be published for a claim. Asks for group, number. Answers callback, header, then part and
-- payload of each.
register('complete', function()
  if not holds(ARGV[1], ARGV[2]) then return false end
  local found = call('HMGET', P .. 'tc:' .. ARGV[1], 'callback', 'header')
  return {found[1], found[2], call('HGETALL', P .. 'tp:' .. ARGV[1])}
end)

-- renew: asks for group, number, when the claim runs out.
register('renew', function()
  if not holds(ARGV[1], ARGV[2]) then return 0 end
  call('ZADD', P .. 'due', ARGV[3], ARGV[1])
  return 1
end)

-- done: the callback is published. Asks for group, number. A second time, after an answer that was lost, is as good.
register('done', function()
  local key = P .. 'tc:' .. ARGV[1]
  local found = call('HMGET', key, 'status', 'claims')
  if found[2] ~= ARGV[2] or found[1] == 'OPEN' then return 0 end
  call('HSET', key, 'status', 'DONE')
  call('HDEL', key, 'callback')
  call('UNLINK', P .. 'tp:' .. ARGV[1])
  call('ZREM', P .. 'due', ARGV[1])
  return 1
end)

-- overdue: claim chords that are complete and were left. Asks for now, how many, when the claims run out.
register('overdue', function()
  local answer = {}
  for _, group in ipairs(call('ZRANGEBYSCORE', P .. 'due', '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
    if call('HGET', P .. 'tc:' .. group, 'status') == 'COMPLETE' then
      answer[#answer + 1] = group
      answer[#answer + 1] = claim(group, ARGV[3])
    else
      call('ZREM', P .. 'due', group) -- it has expired
    end
  end
  return answer
end)
