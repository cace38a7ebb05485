-- Sets an effect aside until later, in one step, so that a crash neither loses nor doubles it.
-- KEYS  out, later      ARGV  entry, effect, not before in ms
redis.call('ZCARD', KEYS[2]) -- fails for a wrong type before anything is removed
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
return 1
