-- emit: an event that no change of a run makes.
--
-- Asks for run or '', now, worker or '', entries, token.

register('emit', function()
  local run, at, worker, entries, token = unpack(ARGV)
  return once(token, function()
    if run == '' or not open_run(run) then return append(run, false, worker, entries, at) end
    now = at
    append_to_run(worker, entries)
    flush()
    return 1
  end)
end)
