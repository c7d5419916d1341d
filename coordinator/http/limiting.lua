-- Counts one request against several limits: against all of them, or, when one has no room, against none.
-- KEYS: one for each limit. ARGV: now, the request's id, then kind, most and seconds of each limit.
-- Answers "remaining wait reset" for each. limiting_memory.py says the same in Python, and one test holds both to it.

local now, id = tonumber(ARGV[1]), ARGV[2]
local slack = 1e-6

local function window(key, most, seconds)
  local stored = redis.call('HMGET', key, 'index', 'count', 'before')
  local held = tonumber(stored[1]) or -1
  local index = math.max(math.floor(now / seconds), held)
  local count, before = 0, 0
  if held == index then
    count, before = tonumber(stored[2]), tonumber(stored[3])
  elseif held == index - 1 then
    before = tonumber(stored[2])
  end
  local gone = math.max(0, now - index * seconds)
  local used = before * (1 - gone / seconds) + count
  local fits = used + 1 <= most + slack
  local wait = 0
  if not fits then
    if count + 1 <= most then
      wait = seconds * (1 - (most - 1 - count) / before) - gone
    else
      wait = seconds - gone + seconds * (1 - (most - 1) / count)
    end
  end
  local remaining = math.floor(most - used - (fits and 1 or 0) + slack)
  return fits, remaining, wait, (index + 1) * seconds, function()
    redis.call('HSET', key, 'index', index, 'count', count + 1, 'before', before)
    redis.call('PEXPIRE', key, math.ceil(2000 * seconds))
  end
end

local function bucket(key, most, seconds)
  local taken = math.max(tonumber(redis.call('GET', key) or '0'), now) + seconds
  local wait = taken - now - most * seconds
  local fits = wait <= slack
  local full_at = fits and taken or taken - seconds
  local remaining = math.floor((most * seconds - (full_at - now)) / seconds + slack)
  return fits, remaining, wait, full_at, function()
    redis.call('SET', key, string.format('%.6f', taken), 'PX', math.ceil(1000 * (taken - now)) + 1000)
  end
end

local function lease(key, most, seconds)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  local held = redis.call('ZCARD', key)
  local fits = held < most
  return fits, most - held - (fits and 1 or 0), 1, now, function()
    redis.call('ZADD', key, now + seconds, id)
    redis.call('PEXPIRE', key, math.ceil(1000 * seconds))
  end
end

local kinds = { window = window, bucket = bucket, lease = lease }
local answers, takes, all = {}, {}, true
for i, key in ipairs(KEYS) do
  local kind, most, seconds = ARGV[3 * i], tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
  local fits, remaining, wait, reset, take = kinds[kind](key, most, seconds)
  answers[i] = string.format('%d %.6f %.6f', math.max(0, remaining), fits and 0 or math.max(wait, slack), reset)
  takes[i] = take
  all = all and fits
end
if all then
  for _, take in ipairs(takes) do
    take()
  end
end
return answers
