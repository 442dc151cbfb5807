-- release_lease: delete a lease. Asks for the incarnation, when it ends ('' = whenever), token.
-- Answers 1, or 0 when it was gone or ends at another time.

local ENDS_AT = 10

register('release_lease', function()
  return once(ARGV[3], function()
    if ARGV[2] ~= '' then
      local lease = call('HGET', P .. 'leases', ARGV[1])
      if not lease or decode(lease)[ENDS_AT] ~= tonumber(ARGV[2]) then return 0 end
    end
    return call('HDEL', P .. 'leases', ARGV[1])
  end)
end)
