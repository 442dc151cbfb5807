-- Core: names of keys, places in rows, JSON texts, the event log.
--
-- The hash r:<run> holds a run: `at` (where it stands), `run` and `res` (as it was made), `err`, and for each step
-- s<n> (state), f<n> (facts), i<n> (input and policies), o<n> (output), x<n> (error); for each join j, p, b and d.
-- A step exists once it has a state. Only rows of ours are decoded; what users wrote is text that is passed on.

-- what begin() sets for each call; while the library is loaded there is nothing to call
local call, decode, encode
-- what keys begin with, and the arguments
local P, ARGV

-- at: where a run stands
local A_STATUS, A_SINGLE, A_GOES_ON, A_REMAINING, A_ENDING, A_ENDED = 1, 2, 3, 4, 5, 6
local A_NEXT_N, A_NEXT_JOIN, A_TOKEN, A_FAILED, A_LOG, A_CREATED = 7, 8, 9, 10, 11, 12
-- the job that made it; only in runs of jobs
local A_JOB = 13
-- when it ends, whatever it has come to, and when it does if nothing of it has begun; only in runs that do
local A_DEADLINE, A_EXPIRES = 14, 15
-- s<n>: what changes of a step; those from RESENDS on only in steps that had need of them
local STATUS, GENERATION, CLAIMS, ATTEMPTS, CRASHES, ANNOUNCED, WORKER, STARTED, ENDED, TOKEN =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local RESENDS, DUE, LEFT, BROKEN, COLLECTS, FELL = 11, 12, 13, 14, 15, 16
-- f<n>: what does not change and is looked at here
local NAME, KEY, QUEUE, PRIORITY, RANK, CREATED, FEEDS, PARENT, WAITS_FOR, MAX_PARALLEL, IS_MAP, NEEDS, INHERITS =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
local FALLBACK, QUOTED, TIMEOUT, TARGET = 14, 15, 17, 19
local FRESH = ',0,0,0,0,0,false,false,false,false]'

-- A list of numbers as JSON.
local function numbers_text(numbers)
  return '[' .. table.concat(numbers, ',') .. ']'
end

-- The first characters of a text in UTF-8, as Python counts them.
local function cut(text, most)
  if #text <= most then return text end
  local count = 0
  for at in text:gmatch('()[%z\1-\127\192-\255]') do
    count = count + 1
    if count > most then return text:sub(1, at - 1) end
  end
  return text
end

-- An error is {type, message, traceback, names as JSON text}.
local function error_text(error)
  return '[' .. encode(error[1]) .. ',' .. encode(error[2]) .. ',' .. encode(error[3]) .. ',' .. error[4] .. ']'
end

-- What an error says: its message, or its type where it has none.
local function shown(error)
  return error[2] ~= '' and error[2] or error[1]
end

-- Give a state its places from RESENDS on.
local function widen(state)
  if state[RESENDS] == nil then
    state[RESENDS], state[DUE], state[LEFT], state[BROKEN], state[COLLECTS], state[FELL] = 0, false, false, 0, false, false
  end
  return state
end

-- Append the events of one transaction as one row; returns its number, which is the cursor behind it.
local function append(run_id, single, worker, entries, now)
  local seq = call('INCR', P .. 'seq')
  call('XADD', P .. 'events', seq, 't', now, 'r', run_id, 's', single and 1 or 0, 'w', worker, 'e', entries)
  return seq
end

-- A row of the log in three texts, which take less to send and to read than its fields: the first holds what has no
-- spaces in it, and the entries; then the run and the worker, whose names may hold anything.
local function put_row(found, row)
  local fields = row[2]
  found[#found + 1] = row[1] .. ' ' .. fields[2] .. ' ' .. fields[6] .. ' ' .. fields[10]
  found[#found + 1], found[#found + 2] = fields[4], fields[8]
end

-- Do something once, however often it is asked for: the answer is kept for as long as it may be asked again.
local function once(token, work)
  local kept = call('GET', P .. 'done:' .. token)
  if kept then return cmsgpack.unpack(kept) end
  local answer = work()
  call('SET', P .. 'done:' .. token, cmsgpack.pack(answer), 'EX', 60)
  return answer
end
