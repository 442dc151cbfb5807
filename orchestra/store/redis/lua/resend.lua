-- resend: the oldest steps that were sent and that nobody claimed, each waiting longer than the time before.
--
-- Asks for now, before, limit, queues. Answers with dispatches.

local HIGHEST, LOWEST = 0, 10

-- Send one step again, dated ahead, so that it counts as unheard later each time: after 1, 2, 4, … seconds.
local function send_again(queue, priority, member)
  local run_id, n = named_by(member)
  if not open_run(run_id, n) then return end
  local step = R.steps[n]
  local s = widen(step.s)
  local score = priority * SENT_BAND + tonumber(now) + 2 ^ s[RESENDS]
  call('ZADD', P .. 'q:' .. queue, string.format('%.6f', score), member)
  s[RESENDS] = math.min(s[RESENDS] + 1, 5)
  change(step)
  flush()
  dispatch(run_id, n, s[GENERATION], step.text)
end

-- Send again what of a queue was not heard of.
local function resend(queue, before, limit)
  for priority = HIGHEST, LOWEST do
    local room = limit - #dispatches / 4
    if room <= 0 then return end
    local low, high = priority * SENT_BAND, priority * SENT_BAND + before
    local members = call('ZRANGEBYSCORE', P .. 'q:' .. queue, string.format('%.6f', low),
      '(' .. string.format('%.6f', high), 'LIMIT', 0, room)
    for _, member in ipairs(members) do send_again(queue, priority, member) end
  end
end

register('resend', function()
  now = ARGV[1]
  for at = 4, #ARGV do
    if call('EXISTS', P .. 'q:' .. ARGV[at]) == 1 then resend(ARGV[at], tonumber(ARGV[2]), tonumber(ARGV[3])) end
  end
  return dispatches
end)
