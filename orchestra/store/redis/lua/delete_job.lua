-- delete_job: a job and its backfills; its runs stay. Asks for id, token. Answers 1, or 0 when there is none.

local function drop_job(id)
  call('ZREM', P .. 'jobs', id)
  call('ZREM', P .. 'jobs:due', id)
  return call('DEL', P .. 'j:' .. id)
end

register('delete_job', function()
  local id, token = unpack(ARGV)
  return once(token, function()
    for _, backfill in ipairs(call('SMEMBERS', P .. 'jb:' .. id)) do drop_job(backfill) end
    call('DEL', P .. 'jb:' .. id)
    return drop_job(id)
  end)
end)
