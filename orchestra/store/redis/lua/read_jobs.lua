-- read_jobs: some jobs. Asks for their ids. Answers with (id, name, `made`, `at`, error or '') of each that there is.

register('read_jobs', function()
  local found = {}
  for _, id in ipairs(ARGV) do add_job_row(found, id) end
  return found
end, true)
