-- Writes a setting, if the lease given is still the newest.
-- KEYS  setting, lease      ARGV  value, fence ('' without a lease)
if ARGV[2] ~= '' and redis.call('HGET', KEYS[2], 'f') ~= ARGV[2] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
