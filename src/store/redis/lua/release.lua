-- Gives one's own lease back. The fence stays.
-- KEYS  lease      ARGV  owner
if redis.call('HGET', KEYS[1], 'o') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'o', '', 'u', '0')
return 1
