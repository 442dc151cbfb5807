-- Jobs: the hash j:<job> holds one: `at` (where it stands), `name`, `made` (the rest of it, as its author wrote it) and
-- `err`. jobs has all by age, jobs:due those that are ACTIVE by when they are due, jb:<job> its backfills. Of its runs,
-- which outlive it, jr:<job> has all by age, jt:<job> all by the time that they stand for, jo:<job> those that are open.

-- at: where a job stands; times are texts, or false
local J_STATUS, J_VERSION, J_NEXT, J_DUE, J_LAST, J_LAST_RUN, J_RUNS, J_MISSED = 1, 2, 3, 4, 5, 6, 7, 8

-- Where a job stands; nil when there is none.
local function job_at(id)
  local text = call('HGET', P .. 'j:' .. id, 'at')
  return text and decode(text) or nil
end

-- Write where a job stands, and let beats find it when it is due.
local function put_job_at(id, at)
  call('HSET', P .. 'j:' .. id, 'at', encode(at))
  if at[J_STATUS] == 'ACTIVE' and at[J_DUE] then
    call('ZADD', P .. 'jobs:due', at[J_DUE], id)
  else
    call('ZREM', P .. 'jobs:due', id)
  end
end

-- Write why the last run of a job could not begin, or that it could.
local function put_job_error(id, error)
  if error ~= '' then call('HSET', P .. 'j:' .. id, 'err', error) else call('HDEL', P .. 'j:' .. id, 'err') end
end

-- A run of a job is made: find it by its job.
local function index_run(job, scheduled_for, created, run_id)
  call('ZADD', P .. 'jr:' .. job, created, run_id)
  call('ZADD', P .. 'jt:' .. job, scheduled_for, run_id)
  call('SADD', P .. 'jo:' .. job, run_id)
end

-- A run of a job is deleted.
local function unindex_run(job, run_id)
  call('ZREM', P .. 'jr:' .. job, run_id)
  call('ZREM', P .. 'jt:' .. job, run_id)
  call('SREM', P .. 'jo:' .. job, run_id)
end

-- What the run calls is gone: that is said where people look for its job, and not in the run alone.
local function blame_job(error)
  local job = R.at[A_JOB]
  local name = job and call('HGET', P .. 'j:' .. job, 'name')
  if not name then return end
  local reason = cut(shown(error), 500)
  put_job_error(job, reason)
  local scheduled_for = string.format('%.17g', call('ZSCORE', P .. 'jt:' .. job, R.id))
  say('job.missed', {}, '"job_id":' .. encode(job) .. ',"name":' .. encode(name) .. ',"scheduled_for":' .. scheduled_for
    .. ',"count":1,"reason":' .. encode(reason))
end

-- Add what readers see of a job, if there is one of that id.
local function add_job_row(found, id)
  local got, last = call('HMGET', P .. 'j:' .. id, 'name', 'made', 'at', 'err'), #found
  if not got[1] then return end
  found[last + 1], found[last + 2], found[last + 3], found[last + 4], found[last + 5] = id, got[1], got[2], got[3], got[4] or ''
end
