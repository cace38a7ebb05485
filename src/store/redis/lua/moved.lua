-- Moves an effect from one stream to another, in one step, so that a crash neither loses nor doubles it.
-- KEYS  from, to      ARGV  entry, effect
redis.call('XLEN', KEYS[2]) -- fails for a wrong type before anything is removed
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('XADD', KEYS[2], '*', 'b', ARGV[2])
return 1
