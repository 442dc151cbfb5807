-- put_job: insert a job, or replace one that still has the version that was read.
--
-- Asks for id, version, token, created, the job that it backfills or '', name, `made`, error or '', then status,
-- next_run_at, due_at, last_run_at, last_run_id ('' for none of these), runs, missed. Answers 1, or 0.

-- Where the job stands by the arguments.
local function at_of_arguments(version)
  local at = {ARGV[9], version}
  for place = 10, 13 do at[place - 7] = ARGV[place] ~= '' and ARGV[place] end
  at[J_RUNS], at[J_MISSED] = tonumber(ARGV[14]), tonumber(ARGV[15])
  return at
end

register('put_job', function()
  local id, version, token, created, backfills, name, made, error = unpack(ARGV, 1, 8)
  return once(token, function()
    local old = job_at(id)
    if (old and old[J_VERSION] or 0) ~= tonumber(version) then return 0 end
    call('ZADD', P .. 'jobs', created, id)
    if backfills ~= '' then call('SADD', P .. 'jb:' .. backfills, id) end
    call('HSET', P .. 'j:' .. id, 'name', name, 'made', made)
    put_job_error(id, error)
    put_job_at(id, at_of_arguments(version + 1))
    return 1
  end)
end)
