-- orphans: the claims that are running under an incarnation that has no lease.

register('orphans', function()
  local found = {}
  for _, worker in ipairs(call('SMEMBERS', P .. 'holders')) do
    if call('HEXISTS', P .. 'leases', worker) == 0 then
      local held = call('ZRANGE', P .. 'h:' .. worker, 0, -1)
      for _, name in ipairs(held) do found[#found + 1] = name end
      if #held == 0 then call('SREM', P .. 'holders', worker) end
    end
  end
  return found
end)
