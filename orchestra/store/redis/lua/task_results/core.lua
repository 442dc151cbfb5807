-- Core: names of keys, how long they live, how operations are made known.
--
-- t:<task> is a result: 'S' where it has succeeded, else '-', and the payload. Its channel has the same name.
-- tg:<group> is a group. tc:<group> is a chord: status, size, grown, claims, header, callback; tp:<group> are the payloads
-- of its parts, by place (in eight hexadecimal digits) and task. `due` has the chords that are complete, by the time at
-- which their claims run out.

local call, P, ARGV

-- Set or take away when a key goes; '' is never.
local function expire(key, at)
  if at == '' then call('PERSIST', key) else call('PEXPIREAT', key, at) end
end

-- The same for all keys of a chord.
local function expire_chord(group, at)
  expire(P .. 'tc:' .. group, at)
  expire(P .. 'tp:' .. group, at)
end

-- Claim a chord that is complete until a time; returns the number of the claim.
local function claim(group, due)
  call('ZADD', P .. 'due', due, group)
  return call('HINCRBY', P .. 'tc:' .. group, 'claims', 1)
end

-- Whether a claim is the newest one of a chord that is complete.
local function holds(group, number)
  local found = call('HMGET', P .. 'tc:' .. group, 'status', 'claims')
  return found[1] == 'COMPLETE' and found[2] == number
end

-- Nothing of the call before may be seen: the library lives as long as the server.
local function register(name, work)
  redis.register_function(LIBRARY .. '_' .. name, function(keys, args)
    call, P, ARGV = redis.call, keys[1], args
    return work()
  end)
end
