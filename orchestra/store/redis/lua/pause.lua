-- pause: let nothing of a run begin any more. Asks for run, now, token, window. Answers like cancel.

register('pause', function()
  now = ARGV[2]
  set_window(ARGV[4])
  return once(ARGV[3], function()
    if not open_run(ARGV[1]) or R.at[A_STATUS] ~= 'RUNNING' or R.at[A_ENDING] then return false end
    for _, n in ipairs(open_steps()) do
      local step = R.steps[n]
      if step.s[STATUS] == 'QUEUED' then
        unqueue(R.id, n, step.f)
        touch(step.f[QUEUE])
      end
    end
    move_run('PAUSED')
    say('workflow.paused', {})
    return {'', commit()}
  end)
end)
