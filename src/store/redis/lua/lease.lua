-- Takes a free lease under a new fence, or extends one's own. The fence outlives every holder. It is never below the
-- time: a node that took over and never heard of the last holder must not give the same fence away once more.
-- KEYS  lease      ARGV  owner, life in ms      Gives the fence, or 0.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local held = redis.call('HMGET', KEYS[1], 'o', 'u', 'f')
local fence = tonumber(held[3] or '0')
local free = not held[2] or tonumber(held[2]) <= now
if not free and held[1] ~= ARGV[1] then
  return 0
end
if free then
  fence = math.max(fence + 1, now)
end
redis.call('HSET', KEYS[1], 'o', ARGV[1], 'u', string.format('%.0f', now + tonumber(ARGV[2])), 'f', string.format('%.0f', fence))
return fence
