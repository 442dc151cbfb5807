-- due_jobs: jobs whose time has come, earliest first. Asks for now, how many at most.
--
-- Answers {when the next one is due or '', jobs as read_jobs has them}.

register('due_jobs', function()
  local found = {}
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'jobs:due', '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
    add_job_row(found, id)
  end
  local next_due = call('ZRANGE', P .. 'jobs:due', 0, 0, 'WITHSCORES')
  return {next_due[2] or '', found}
end, true)
