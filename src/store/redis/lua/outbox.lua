-- Puts back what has waited long enough, and gives what is to be done now, oldest first.
-- KEYS  out, later      ARGV  now in ms, how many
local ready = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, effect in ipairs(ready) do
  redis.call('XADD', KEYS[1], '*', 'b', effect)
  redis.call('ZREM', KEYS[2], effect)
end
return redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[2])
