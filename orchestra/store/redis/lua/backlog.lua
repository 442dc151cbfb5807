-- backlog: what is ready, by queue and priority.
--
-- Answers with (queue, priority, number, how many of them were sent, sent since or '', ready since or '') each. The last
-- is that of the one sent first and of the oldest of each of the best ranks that wait: not all of them are looked at.

local RANKS = 20

-- Since when the step that a member names is ready, or nil.
local function ready_of(member, sent)
  local run_id, n = named_by(member)
  local got = call('HMGET', P .. 'r:' .. run_id, 's' .. n, 'f' .. n)
  return got[1] and tonumber(ready_since(decode(got[1]), decode(got[2]), sent))
end

local function earlier(one, other)
  return one and other and math.min(one, other) or one or other
end

-- The earliest of the waiting steps of a priority, of which those of one rank are in the order of their age.
local function waiting_since(waiting, priority)
  local since, above = nil, '(' .. string.format('%.0f', (priority - 1) * BAND)
  for _ = 1, RANKS do
    local first = call('ZRANGEBYSCORE', waiting, above, string.format('%.0f', priority * BAND), 'WITHSCORES', 'LIMIT', 0, 1)
    if not first[1] then break end
    since, above = earlier(since, ready_of(first[1], false)), '(' .. first[2]
  end
  return since
end

register('backlog', function()
  local found = {}
  for _, queue in ipairs(call('HKEYS', P .. 'open')) do
    local waiting, sent = P .. 'w:' .. queue, P .. 'q:' .. queue
    for priority = 1, 10 do
      local first = string.format('%.0f', priority * SENT_BAND)
      local behind = '(' .. string.format('%.0f', (priority + 1) * SENT_BAND)
      local at_broker = call('ZCOUNT', sent, first, behind)
      local number = at_broker + call('ZCOUNT', waiting,
        '(' .. string.format('%.0f', (priority - 1) * BAND), string.format('%.0f', priority * BAND))
      if number > 0 then
        local oldest = call('ZRANGEBYSCORE', sent, first, behind, 'WITHSCORES', 'LIMIT', 0, 1)
        local since = oldest[2] and string.format('%.6f', tonumber(oldest[2]) - priority * SENT_BAND) or ''
        local ready = earlier(oldest[1] and ready_of(oldest[1], oldest[2]), waiting_since(waiting, priority))
        for _, each in ipairs({queue, priority, number, at_broker, since, ready and string.format('%.6f', ready) or ''}) do
          found[#found + 1] = each
        end
      end
    end
  end
  return found
end, true)
