-- reserve: set numbers aside for steps and joins of a run. Asks for run, steps, joins. Answers the first of each.

register('reserve', function()
  if not open_run(ARGV[1]) then return false end
  local at = R.at
  local first_n, first_join = at[A_NEXT_N], at[A_NEXT_JOIN]
  at[A_NEXT_N], at[A_NEXT_JOIN], R.at_changed = first_n + tonumber(ARGV[2]), first_join + tonumber(ARGV[3]), true
  flush()
  return {first_n, first_join}
end)
