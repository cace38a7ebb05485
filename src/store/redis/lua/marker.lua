-- Creates the marker of a partition that has none.
-- KEYS  epoch      ARGV  incarnation, fingerprint, fence
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('HSET', KEYS[1], 'i', ARGV[1], 'f', ARGV[2], 'n', ARGV[3])
return 1
