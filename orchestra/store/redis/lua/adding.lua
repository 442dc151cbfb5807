-- Adding: steps that come into being, with their run or with the step that turned into them.

-- Write rows that come as fields and values in the arguments, from a place on.
local function add_rows(key, from)
  for first = from, #ARGV, 1000 do
    call('HSET', key, unpack(ARGV, first, math.min(first + 999, #ARGV)))
  end
end

-- Let ready steps wait: `members` are those of one queue, priority and rank.
local function add_waiting(queue, priority, rank, members)
  if R.at[A_STATUS] == 'PAUSED' then return end
  local score = priority * BAND - rank
  for first = 1, #members, 500 do
    local pairs_ = {}
    for at = first, math.min(first + 499, #members) do
      pairs_[#pairs_ + 1], pairs_[#pairs_ + 2] = score, members[at]
    end
    call('ZADD', P .. 'w:' .. queue, unpack(pairs_))
  end
end

-- Give states to new steps, which makes them exist. `ready` lists those that wait for nothing as JSON: [queue, priority,
-- rank, [n, …]] each; `open` the number of new steps of each queue. Returns the numbers of the ready ones, in order.
local function add_states(key, run_id, first, total, ready, open)
  local queued, numbers = {}, {}
  for _, group in ipairs(decode(ready)) do
    local members = {}
    for _, n in ipairs(group[4]) do
      queued[n] = true
      numbers[#numbers + 1] = n
      members[#members + 1] = member_of(run_id, n, now)
    end
    add_waiting(group[1], group[2], group[3], members)
    touch(group[1])
  end
  for from = first, first + total - 1, 500 do
    local fields = {}
    for n = from, math.min(from + 499, first + total - 1) do
      fields[#fields + 1] = 's' .. n
      fields[#fields + 1] = (queued[n] and '["QUEUED"' or '["PENDING"') .. FRESH
    end
    call('HSET', key, unpack(fields))
  end
  for _, group in ipairs(decode(open)) do call('HINCRBY', P .. 'open', group[1], group[2]) end
  table.sort(numbers)
  return numbers
end

-- Put the steps of a run into the index of keys: (key, n) each.
local function index_keys(id, index)
  local list = decode(index)
  for first = 1, #list, 1000 do
    local fields = {}
    for at = first, math.min(first + 999, #list), 2 do
      fields[#fields + 1], fields[#fields + 2] = list[at], id .. '.' .. list[at + 1]
    end
    if #fields > 0 then call('HSET', P .. 'steps', unpack(fields)) end
  end
end
