-- record: keep a result, count a part, or both.
--
-- Asks for task or '', 'S' or '-', payload, when it expires; group or '', place and task, payload, callback, when it
-- expires, when a claim runs out. Answers the number of the claim that its part gave it, or nothing.

local function keep(task, kind, payload, expires)
  local key = P .. 't:' .. task
  if call('GETRANGE', key, 0, 0) == 'S' then return end
  call('SET', key, kind .. payload)
  expire(key, expires)
  call('PUBLISH', key, payload)
end

local function count(group, part, payload, callback, expires, due)
  local chord, parts = P .. 'tc:' .. group, P .. 'tp:' .. group
  local found = call('HMGET', chord, 'status', 'size', 'grown')
  if found[1] and found[1] ~= 'OPEN' then return false end
  if call('HSETNX', parts, part, payload) == 0 then return false end
  if not found[1] then call('HSET', chord, 'status', 'OPEN') end
  local complete = found[2] and call('HLEN', parts) >= tonumber(found[2]) + tonumber(found[3] or 0)
  if complete then call('HSET', chord, 'status', 'COMPLETE', 'callback', callback) end
  expire_chord(group, expires)
  return complete and claim(group, due)
end

register('record', function()
  if ARGV[1] ~= '' then keep(ARGV[1], ARGV[2], ARGV[3], ARGV[4]) end
  return ARGV[5] ~= '' and count(ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10])
end)
