-- Begin: what a call starts with, and how operations are made known to the server.

-- Nothing of the call before may be seen: the library lives as long as the server.
local function begin(keys, args)
  call, decode, encode = redis.call, cjson.decode, cjson.encode
  P, ARGV = keys[1], args
  R, now, dispatches, window, windows = nil, nil, {}, 0, {}
  entries, touched, closed, single, token = {}, {}, {}, false, nil
end

-- What operations do, by their names.
local works = {}

-- Make an operation known under its name. One that only reads works on a server whose memory is full, too.
local function register(name, work, only_reads)
  works[name] = work
  redis.register_function{
    function_name = LIBRARY .. '_' .. name,
    callback = function(keys, args)
      begin(keys, args)
      return work()
    end,
    flags = only_reads and {'no-writes'} or {},
  }
end
