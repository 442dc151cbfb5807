-- list_runs: the newest runs of an index. Asks for its name, the earliest time, how many to leave out, how many.
--
-- Answers with (id, at, run, error or '') each.

register('list_runs', function()
  local found = {}
  for _, id in ipairs(call('ZREVRANGEBYSCORE', P .. ARGV[1], '+inf', ARGV[2], 'LIMIT', ARGV[3], ARGV[4])) do
    local got = call('HMGET', P .. 'r:' .. id, 'at', 'run', 'err')
    local last = #found
    found[last + 1], found[last + 2], found[last + 3], found[last + 4] = id, got[1], got[2], got[3] or ''
  end
  return found
end, true)
