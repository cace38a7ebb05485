-- Ends the rebuild of a partition, if it is still the one of this generation.
-- KEYS  epoch      ARGV  first fence of the generation      Gives the fence, or 0.
local marker = redis.call('HMGET', KEYS[1], 'n', 's')
if marker[2] ~= 'r' or math.floor(tonumber(marker[1]) / 4294967296) ~= math.floor(tonumber(ARGV[1]) / 4294967296) then
  return 0
end
redis.call('HSET', KEYS[1], 's', '')
return redis.call('HINCRBY', KEYS[1], 'n', 1)
