-- Marks a partition as being rebuilt, in a generation of its own.
-- KEYS  epoch      ARGV  incarnation, fingerprint, least fence, changes told before (ms), grants gone until (ms)
-- Gives the marker as it is now: one of other keys stays what it is.
if redis.call('TYPE', KEYS[1])['ok'] ~= 'hash' then
  redis.call('DEL', KEYS[1])
end
local known = redis.call('HMGET', KEYS[1], 'i', 'f', 'n', 's', 'l', 'b')
local fingerprint, fence, told = ARGV[2], tonumber(ARGV[3]), ARGV[4]
if known[2] then
  if string.match(known[2], '^[^:]*') ~= string.match(fingerprint, '^[^:]*') then
    return known
  end
  fingerprint = known[2]
end
if known[3] then
  fence = math.max(fence, (math.floor(tonumber(known[3]) / 4294967296) + 1) * 4294967296)
end
if known[4] == 'r' and known[5] and tonumber(known[5]) < tonumber(told) then
  told = known[5]
end
redis.call('HSET', KEYS[1], 'i', ARGV[1], 'f', fingerprint, 'n', string.format('%.0f', fence),
  's', 'r', 'l', told, 'b', ARGV[5])
return redis.call('HMGET', KEYS[1], 'i', 'f', 'n', 's', 'l', 'b')
