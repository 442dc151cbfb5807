-- save_checkpoint: keep a text under a key. Asks for run, n, generation, claim, key, value. Answers 1, or 0 when the claim
-- was superseded.

register('save_checkpoint', function()
  if not holds() then return 0 end
  call('HSET', P .. 'c:' .. ARGV[1] .. '.' .. ARGV[2], ARGV[5], ARGV[6])
  return 1
end)
