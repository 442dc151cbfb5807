-- resume: let a paused run go on. Asks for run, now, token, window. Answers like cancel.

register('resume', function()
  now = ARGV[2]
  set_window(ARGV[4])
  return once(ARGV[3], function()
    if not open_run(ARGV[1]) or R.at[A_STATUS] ~= 'PAUSED' then return false end
    move_run('RUNNING')
    for _, n in ipairs(open_steps()) do
      if R.steps[n].s[STATUS] == 'QUEUED' then make_ready(R.steps[n]) end
    end
    say('workflow.resumed', {})
    return {'', commit()}
  end)
end)
