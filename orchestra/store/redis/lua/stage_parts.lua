-- stage_parts: rows of steps that a running claim is about to add, in slices. They do not exist before they have states.
--
-- Asks for run, n, generation, claim, then fields and values. Answers 1, or 0 when the claim was superseded.

register('stage_parts', function()
  if not open_run(ARGV[1], tonumber(ARGV[2])) then return 0 end
  local step = R.steps[tonumber(ARGV[2])]
  if not step or step.s[STATUS] ~= 'RUNNING' then return 0 end
  if step.s[GENERATION] ~= tonumber(ARGV[3]) or step.s[CLAIMS] ~= tonumber(ARGV[4]) then return 0 end
  add_rows(R.key, 5)
  return 1
end)
