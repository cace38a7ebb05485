-- Notes who the installation is: the first time, and when it moves on.
-- KEYS  installation      ARGV  incarnation, fingerprint, fence
local known = redis.call('HMGET', KEYS[1], 'i', 'f', 'n')
if not known[1] then
  redis.call('HSET', KEYS[1], 'i', ARGV[1], 'f', ARGV[2], 'n', ARGV[3])
elseif known[1] == ARGV[1] and tonumber(known[3]) < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'n', ARGV[3])
end
return redis.call('HMGET', KEYS[1], 'i', 'f', 'n', 's', 'l', 'b')
