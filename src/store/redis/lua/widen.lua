-- Gives a marker another fingerprint of the same keys.
-- KEYS  marker      ARGV  fingerprint
local known = redis.call('HGET', KEYS[1], 'f')
if known and string.match(known, '^[^:]*') == string.match(ARGV[1], '^[^:]*') then
  redis.call('HSET', KEYS[1], 'f', ARGV[1])
end
return 1
