-- tell: keep progress and log lines. Asks for run, n, generation, claim, progress or '', most lines, token, lines. Answers
-- 1, or 0 when the claim was superseded.

register('tell', function()
  if not holds() then return 0 end
  return once(ARGV[7], function()
    if ARGV[5] ~= '' then call('HSET', P .. 'p:' .. ARGV[1], ARGV[2], ARGV[5]) end
    if #ARGV > 7 then
      call('RPUSH', P .. 'l:' .. ARGV[1], unpack(ARGV, 8))
      call('LTRIM', P .. 'l:' .. ARGV[1], -tonumber(ARGV[6]), -1)
    end
    return 1
  end)
end)
