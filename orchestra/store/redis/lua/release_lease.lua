-- release_lease: delete a lease. Asks for the incarnation, token. Answers 1, or 0 when it was gone.

register('release_lease', function()
  return once(ARGV[2], function() return call('HDEL', P .. 'leases', ARGV[1]) end)
end)
