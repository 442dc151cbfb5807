-- together: claims and records, one after the other.
--
-- Asks for each for its name, the number of its arguments, and these. Answers with the list of their answers.

register('together', function()
  local keys, given, answers, at = {P}, ARGV, {}, 1
  while at <= #given do
    local last = at + 1 + tonumber(given[at + 1])
    begin(keys, {unpack(given, at + 2, last)})
    answers[#answers + 1] = works[given[at]]()
    at = last + 1
  end
  return answers
end)
