-- Compares, then writes, wholly or not at all. A script is not rolled back when it fails half way, so everything
-- that could fail (types, former values, marker) is looked at before the first write.
--
-- KEYS  record, account, grants, due, out, epoch, audit, mark
-- ARGV  incarnation ('' for any), fingerprint of the keys, least fence, mark's life in ms ('' for no mark), member,
--       due ('' leave, '-' never, or ms), audit lines' life in their order,
--       three times: compare ('' no, '0' absent, '1' beginning with), former, put ('' no, '1' yes, '-' remove), value, life in ms ('' for ever),
--       number of effects and the effects, number of audit lines and their places and lines,
--       with lines the head of their chain: number and hash it must have, and number, hash, place and MAC it gets,
--       'r' to write also where the partition is being rebuilt
-- Gives {0, fence}, {1} for a duplicate, {2} for a conflict, {3, fields of the marker} for a wrong marker,
-- {4, fields of the head} for another head.

local marker = redis.call('HMGET', KEYS[6], 'i', 'f', 'n', 's', 'l', 'b')
if not (marker[1] and marker[2] and marker[3]) then
  return {3}
end
if (ARGV[1] ~= '' and marker[1] ~= ARGV[1]) or string.match(marker[2], '^[^:]*') ~= ARGV[2]
  or tonumber(marker[3]) < tonumber(ARGV[3]) or (marker[4] == 'r' and ARGV[#ARGV] ~= 'r') then
  return {3, marker[1], marker[2], marker[3], marker[4], marker[5], marker[6]}
end

if ARGV[4] ~= '' and redis.call('EXISTS', KEYS[8]) == 1 then
  return {1}
end

for part = 1, 3 do
  local at = 8 + (part - 1) * 5
  local compare, former = ARGV[at], ARGV[at + 1]
  if compare == '0' then
    if redis.call('EXISTS', KEYS[part]) == 1 then return {2} end
  elseif compare == '1' then
    if redis.call('GETRANGE', KEYS[part], 0, #former - 1) ~= former then return {2} end
  end
end

local at = 23
local effects = tonumber(ARGV[at])
local lines = tonumber(ARGV[at + effects + 1])
local chain = at + effects + 1 + lines * 2
if lines > 0 then
  local head = redis.call('HMGET', KEYS[6], 'an', 'ah', 'ap', 'am')
  if (head[1] or '0') ~= ARGV[chain + 1] or (head[2] or '') ~= ARGV[chain + 2] then
    return {4, head[1], head[2], head[3], head[4]}
  end
end

local types = {[4] = 'zset', [5] = 'stream', [7] = 'zset'}
for key, wanted in pairs(types) do
  local found = redis.call('TYPE', KEYS[key])['ok']
  if found ~= 'none' and found ~= wanted then
    return redis.error_reply('WRONGTYPE ' .. KEYS[key] .. ' is a ' .. found)
  end
end

local fence = redis.call('HINCRBY', KEYS[6], 'n', 1)
if ARGV[4] ~= '' then
  redis.call('SET', KEYS[8], '1', 'PX', ARGV[4])
end
for part = 1, 3 do
  local at = 8 + (part - 1) * 5
  if ARGV[at + 2] == '-' then
    redis.call('DEL', KEYS[part])
  elseif ARGV[at + 2] ~= '' then
    if ARGV[at + 4] ~= '' then
      redis.call('SET', KEYS[part], ARGV[at + 3], 'PX', ARGV[at + 4])
    else
      redis.call('SET', KEYS[part], ARGV[at + 3])
    end
  end
end
if ARGV[6] == '-' then
  redis.call('ZREM', KEYS[4], ARGV[5])
elseif ARGV[6] ~= '' then
  redis.call('ZADD', KEYS[4], ARGV[6], ARGV[5])
end

for i = 1, effects do
  redis.call('XADD', KEYS[5], '*', 'b', ARGV[at + i])
end
at = at + effects + 1
local newest = 0
for i = 1, lines do
  local place = ARGV[at + i * 2 - 1]
  newest = math.max(newest, tonumber(place))
  redis.call('ZADD', KEYS[7], place, ARGV[at + i * 2])
end
if lines > 0 then
  redis.call('HSET', KEYS[6], 'an', ARGV[chain + 3], 'ah', ARGV[chain + 4], 'ap', ARGV[chain + 5], 'am', ARGV[chain + 6])
  -- Counted from the older of the server's time and the newest line: one clock that is far ahead cannot empty it.
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000000
  local cutoff = math.min(now, newest) - tonumber(ARGV[7])
  redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', string.format('(%.0f', cutoff))
end
return {0, fence}
