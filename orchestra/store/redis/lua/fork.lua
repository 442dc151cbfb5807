-- fork: copy a run whose steps begin, or have ended, as was worked out from what was read of it.
--
-- Asks for run, new run, now, token, window, `at`, `run`, how many steps it begins with, how many the old one has, kept
-- steps as JSON ([n, status] each), the others ([n, status, false] each), joins, keys, the first events, the steps
-- that no way leads to. Answers like cancel.

-- Drop what came into being while the old run went on, and what belongs to it alone.
local function drop_rest(first, last)
  call('HDEL', R.key, 'err')
  for n = first, last do
    call('HDEL', R.key, 's' .. n, 'f' .. n, 'i' .. n, 'g' .. n, 'o' .. n, 'x' .. n)
  end
  for n = 0, first - 1 do call('HDEL', R.key, 'k' .. n) end
end

register('fork', function()
  now = ARGV[3]
  set_window(ARGV[5])
  return once(ARGV[4], function()
    local id, first = ARGV[2], tonumber(ARGV[8])
    local name = P .. 'r:' .. id
    if call('COPY', P .. 'r:' .. ARGV[1], name) == 0 then return false end
    call('HSET', name, 'at', ARGV[6], 'run', ARGV[7])
    open_run(id)
    drop_rest(first, tonumber(ARGV[9]) - 1)
    for _, each in ipairs(decode(ARGV[10])) do
      call('HSET', name, 's' .. each[1], '["' .. each[2] .. '",0,0,0,0,0,false,false,"' .. now .. '",false]')
    end
    local steps = decode(ARGV[11])
    for _, each in ipairs(steps) do
      call('HSET', name, 's' .. each[1], '["' .. each[2] .. '",1,0,0,0,0,false,false,false,false]')
    end
    call('ZADD', P .. 'runs', R.at[A_CREATED], id)
    call('ZADD', P .. 'runs:RUNNING', R.at[A_CREATED], id)
    entries[1], entries[2] = ARGV[14]:match('^([^\n]*)\n([^\n]*)$')
    set_joins(ARGV[12])
    open_again(steps)
    index_keys(id, ARGV[13])
    local ended_run = shut(decode(ARGV[15]))
    return {ended_run or '', commit()}
  end)
end)
