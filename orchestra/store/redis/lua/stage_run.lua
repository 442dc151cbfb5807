-- stage_run: rows of a run that is about to be created, in slices, under a name of their own that nobody looks at.
-- What is not finished goes by itself after an hour.
--
-- Asks for the name, then fields and values.

register('stage_run', function()
  add_rows(P .. 'n:' .. ARGV[1], 2)
  call('EXPIRE', P .. 'n:' .. ARGV[1], 3600)
end)
