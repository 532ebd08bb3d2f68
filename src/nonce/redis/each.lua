-- Does for each of several nonces what `one`, above, does for one of them: the very lines that a call of its
-- own runs. The history is looked at once, since nothing comes between: all of it is one step of the server.
--
-- KEYS those of the first, those of the second, and so on
-- ARGV for each: how many keys it has, how many arguments, and these
-- Returns what each came to, in order. One that fails is nothing to the others: it came to 'error', and
-- whether it did something before that is as unknown as after a lost reply.
local answers, key, at = {}, 1, 1
while ARGV[at] do
  local keys, arguments = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local done, answer = pcall(one, { unpack(KEYS, key, key + keys - 1) }, { unpack(ARGV, at + 2, at + 1 + arguments) })
  if not done then answer = { 'error', type(answer) == 'table' and answer.err or tostring(answer) } end
  answers[#answers + 1] = answer
  key, at = key + keys, at + 2 + arguments
end
return answers
