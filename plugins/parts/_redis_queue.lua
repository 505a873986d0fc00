-- The queue in Redis: every verb of redis_queue.py is one call of this script, and so
-- one step that no other process sees half of.
--
-- A job is the hash job:<id> of the fields of Job, empty ones left out, and its number
-- `seq`. All other keys follow from the jobs: `unlink` takes a job out of them, `link`
-- puts it in again as it is then.
--
--   wait:<guild>      waiting jobs by priority and seq; those that are delayed are in
--   later:<guild>       later:<guild>, and in `delayed` by the time when they are due
--   ready:<priority>  guilds by how many they have running and the seq of the first of
--                       theirs that may run, where that has this priority
--   busy:<guild>      claimed and joined jobs by seq
--   joined:<id>       jobs that have joined this one, by seq
--   held:<worker>     claimed jobs by seq; all of them are in `leases` by their end
--   waits:<user>      waiting jobs by seq, and all others of a user in member:<user>
--   guilds            those that have unfinished jobs
--   ended             jobs by the time of their end; ended:<guild>, and `untold`, too
--   requests, same    request key -> id; what is the same -> ids of unfinished jobs
--   running, slots, downloading, processing, waiting
--                     how many: downloads of a guild, of a worker, of a user; a user's
--                       jobs that are processed; waiting jobs in all
--   withdrawn:<id>    those that are not to be added any more
--   workers           by when they were seen; worker:<name> says what is known of one
--   changes, progress, signals, forgotten
--                     streams: a job as it was committed; how far one is; its status;
--                       where the files of one were that was removed
--   facts, layout, seq, budget (when all requests to Discord so far are paid)
--
-- KEYS[1] is the prefix of all keys. ARGV: the verb, the time in Unix seconds or "" for
-- that of Redis, how many jobs of a user may run, then what the verb takes.

local P, verb, clock, per_user = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local ARGS = 4 -- where the verb's own begin
local STEP = 2 ^ 45 -- more than any seq; 128 of them are exact in a double
local CHANGES, PROGRESS, SIGNALS = 10000, 1000, 10000 -- entries that are kept
local FORGOTTEN = 10000
local SEEN_S = 90 -- a worker that was not seen for so long has no slots
local CREDIT, MAX_TURN_S = 4, 5 -- requests that need not wait; for how long one does
local TAKEN = 20 -- overdue leases, and due jobs, that one claim sees to
local OWN = {cancelled = true, permission = true, quota = true} -- causes
local ENDED = {completed = true, failed = true, cancelled = true}
local CLAIMED = {downloading = true, processing = true, uploading = true}
-- What one job takes over from the one that it has joined.
local SHARED = {'facts', 'posts', 'cause', 'error', 'detail', 'finished_at', 'engine'}

local call = redis.call

local function text(number)
  return string.format('%.17g', number)
end

local now
if clock ~= '' then
  now = tonumber(clock)
else
  local time = call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end

-- Fields of a job

local function get(id, name, default)
  return call('HGET', P .. 'job:' .. id, name) or default or ''
end

local function put(id, name, value)
  if value == '' then
    call('HDEL', P .. 'job:' .. id, name)
  else
    call('HSET', P .. 'job:' .. id, name, value)
  end
end

local function one_more(id, name)
  return text((tonumber(get(id, name)) or 0) + 1)
end

local NAMES = {
  'status', 'joins', 'guild_id', 'user_id', 'worker', 'priority', 'seq', 'not_before',
  'same', 'finished_at', 'lease_until', 'told', 'channel_id',
}

local function read(id)
  local job, values = {id = id}, call('HMGET', P .. 'job:' .. id, unpack(NAMES))
  for n, name in ipairs(NAMES) do
    job[name] = values[n] or ''
  end
  for _, name in ipairs({'guild_id', 'user_id', 'priority', 'seq'}) do
    job[name] = tonumber(job[name]) and job[name] or '0'
  end
  job.waits = job.status == 'queued' and job.joins == ''
  return job
end

local function exists(id)
  return call('EXISTS', P .. 'job:' .. id) == 1
end

-- What follows from the jobs

local function add_up(key, field, by)
  if call('HINCRBY', P .. key, field, by) <= 0 then
    call('HDEL', P .. key, field)
  end
end

local function count(key, field)
  return tonumber(call('HGET', P .. key, field) or 0)
end

local function sated(user)
  return count('downloading', user) >= per_user or count('processing', user) >= per_user
end

local function place(priority, seq) -- in its guild's line
  return text((2 - tonumber(priority)) * STEP + tonumber(seq))
end

local function count_to(guild, last) -- all that wait up to a place in its line
  return call('ZCOUNT', P .. 'wait:' .. guild, '-inf', last)
    + call('ZCOUNT', P .. 'later:' .. guild, '-inf', last)
end

-- A guild's first job whose member has not his share running.
local function first_of(guild)
  local from, known, ids = 0, {}, nil
  repeat
    ids = call('ZRANGE', P .. 'wait:' .. guild, from, from + 9)
    for _, id in ipairs(ids) do
      local user = get(id, 'user_id', '0')
      if known[user] == nil then
        known[user] = sated(user)
      end
      if not known[user] then
        return id
      end
    end
    from = from + 10
  until #ids < 10
end

local function refresh(guild)
  for priority = 0, 2 do
    call('ZREM', P .. 'ready:' .. priority, guild)
  end
  local id = first_of(guild)
  if id then
    local score = count('running', guild) * STEP + tonumber(get(id, 'seq', 0))
    call('ZADD', P .. 'ready:' .. get(id, 'priority'), text(score), guild)
  end
end

local function refresh_all_of(user)
  local done = {}
  for _, id in ipairs(call('ZRANGE', P .. 'waits:' .. user, 0, -1)) do
    local guild = get(id, 'guild_id', '0')
    if not done[guild] then
      done[guild] = true
      refresh(guild)
    end
  end
end

-- The unfinished jobs for what is the same that nothing else brings, the oldest first.
local function same_as(same)
  local ids = {}
  for id in string.gmatch(call('HGET', P .. 'same', same) or '', '[^,]+') do
    table.insert(ids, id)
  end
  return ids
end

local function set_same(same, ids)
  if #ids == 0 then
    call('HDEL', P .. 'same', same)
  else
    table.sort(ids, function(a, b)
      return tonumber(get(a, 'seq', 0)) < tonumber(get(b, 'seq', 0))
    end)
    call('HSET', P .. 'same', same, table.concat(ids, ','))
  end
end

local function count_running(job, by)
  if job.status == 'downloading' then
    add_up('running', job.guild_id, by)
    add_up('slots', job.worker, by)
    add_up('downloading', job.user_id, by)
  elseif job.status == 'processing' then
    add_up('processing', job.user_id, by)
  end
end

local function unlink(job)
  local id, guild, user = job.id, job.guild_id, job.user_id
  if job.waits then
    for _, key in ipairs({'wait:' .. guild, 'later:' .. guild, 'delayed', 'waits:' .. user}) do
      call('ZREM', P .. key, id)
    end
    call('DECR', P .. 'waiting')
  else
    call('ZREM', P .. 'member:' .. user, id)
  end
  if ENDED[job.status] then
    for _, key in ipairs({'ended', 'ended:' .. guild, 'untold'}) do
      call('ZREM', P .. key, id)
    end
    return
  end
  if job.joins ~= '' then
    call('ZREM', P .. 'joined:' .. job.joins, id)
  elseif job.same ~= '' then
    local left = {}
    for _, other in ipairs(same_as(job.same)) do
      if other ~= id then
        table.insert(left, other)
      end
    end
    set_same(job.same, left)
  end
  if not job.waits then
    call('ZREM', P .. 'busy:' .. guild, id)
  end
  if CLAIMED[job.status] then
    call('ZREM', P .. 'held:' .. job.worker, id)
    call('ZREM', P .. 'leases', id)
    count_running(job, -1)
  end
  if call('EXISTS', P .. 'wait:' .. guild, P .. 'later:' .. guild, P .. 'busy:' .. guild) == 0 then
    call('SREM', P .. 'guilds', guild)
  end
end

local function link(job)
  local id, guild, user, seq = job.id, job.guild_id, job.user_id, job.seq
  if job.waits then
    if job.not_before ~= '' and tonumber(job.not_before) >= now then
      call('ZADD', P .. 'later:' .. guild, place(job.priority, seq), id)
      call('ZADD', P .. 'delayed', job.not_before, id)
    else
      call('ZADD', P .. 'wait:' .. guild, place(job.priority, seq), id)
    end
    call('ZADD', P .. 'waits:' .. user, seq, id)
    call('INCR', P .. 'waiting')
  else
    call('ZADD', P .. 'member:' .. user, seq, id)
  end
  if ENDED[job.status] then
    local at = job.finished_at == '' and '0' or job.finished_at
    call('ZADD', P .. 'ended', at, id)
    call('ZADD', P .. 'ended:' .. guild, at, id)
    if job.told == '' then
      call('ZADD', P .. 'untold', at, id)
    end
    return
  end
  call('SADD', P .. 'guilds', guild)
  if job.joins ~= '' then
    call('ZADD', P .. 'joined:' .. job.joins, seq, id)
  elseif job.same ~= '' then
    local ids = same_as(job.same)
    table.insert(ids, id)
    set_same(job.same, ids)
  end
  if not job.waits then
    call('ZADD', P .. 'busy:' .. guild, seq, id)
  end
  if CLAIMED[job.status] then
    call('ZADD', P .. 'held:' .. job.worker, seq, id)
    call('ZADD', P .. 'leases', job.lease_until == '' and '0' or job.lease_until, id)
    count_running(job, 1)
  end
end

-- Change a job, by names and values in turn; "" is a field's default.
local function change(id, pairs_of)
  local was = read(id)
  local before = sated(was.user_id)
  unlink(was)
  for n = 1, #pairs_of, 2 do
    put(id, pairs_of[n], pairs_of[n + 1])
  end
  link(read(id))
  refresh(was.guild_id)
  if sated(was.user_id) ~= before then
    refresh_all_of(was.user_id)
  end
  return was.status
end

local function row_of(id)
  return call('HGETALL', P .. 'job:' .. id)
end

local function tell(id, previous)
  call('XADD', P .. 'changes', 'MAXLEN', '~', CHANGES, '*', 'previous', previous, unpack(row_of(id)))
  call('XADD', P .. 'signals', 'MAXLEN', '~', SIGNALS, '*', 'id', id, 'status', get(id, 'status'))
end

local function remove(job)
  unlink(job)
  call('HDEL', P .. 'requests', get(job.id, 'request_key'))
  call('DEL', P .. 'job:' .. job.id)
end

-- Jobs that have joined another

-- The oldest of each channel waits, joined by the others there.
local function let_go(id)
  local first, oldest = {}, {}
  for _, one in ipairs(call('ZRANGE', P .. 'joined:' .. id, 0, -1)) do
    local channel = get(one, 'channel_id')
    if first[channel] then
      change(one, {'joins', first[channel]})
    else
      first[channel] = one
      table.insert(oldest, one)
    end
  end
  for _, one in ipairs(oldest) do
    change(one, {'joins', ''})
  end
  for _, one in ipairs(oldest) do
    tell(one, '') -- for the line it is new
  end
end

local function end_joined(id)
  if OWN[get(id, 'cause')] then
    return let_go(id)
  end
  local status, began = get(id, 'status'), get(id, 'started_at')
  for _, one in ipairs(call('ZRANGE', P .. 'joined:' .. id, 0, -1)) do
    local came = get(one, 'created_at')
    local later = (tonumber(came) or 0) > (tonumber(began) or 0)
    local fields = {'status', status, 'started_at', later and came or began}
    for _, name in ipairs(SHARED) do
      table.insert(fields, name)
      table.insert(fields, get(id, name))
    end
    tell(one, change(one, fields))
  end
end

-- A claimed job as its holder knows it; nil if another has it, or it has ended.
local function held(id, number, worker)
  local job = read(id)
  if CLAIMED[job.status] and job.worker == worker and get(id, 'claim_number') == number then
    return job
  end
end

-- ``taken`` from a worker that is gone, with the files: what is posted, or may be, stays
-- so, and the others are downloaded anew.
local function give_back(id, taken)
  local fields = {'status', 'queued', 'worker', '', 'position', '', 'not_before', ''}
  if taken then
    table.insert(fields, 'sources')
    table.insert(fields, '')
  end
  tell(id, change(id, fields))
end

local function rest(from)
  local values = {}
  for n = from, #ARGV do
    table.insert(values, ARGV[n])
  end
  return values
end

local verbs = {}

-- id, most that may wait, per guild, slots where no worker is known, names and values
function verbs.add(id, most, per_guild, slots)
  local fields = rest(ARGS + 4)
  local given = {}
  for n = 1, #fields, 2 do
    given[fields[n]] = fields[n + 1]
  end
  local key = given.request_key or ''
  local known = call('HGET', P .. 'requests', key)
  if known then
    if known ~= id then
      return {0}
    end
    return {1, tonumber(get(id, 'position')) or 0, get(id, 'joins')}
  end
  if exists(id) or call('EXISTS', P .. 'withdrawn:' .. id) == 1 then
    return {-2}
  end
  local guild, user, same = given.guild_id or '0', given.user_id or '0', given.same or ''
  local leader = same ~= '' and same_as(same)[1]
  local position, priority = 0, tonumber(given.priority)
  if leader then
    if call('ZCARD', P .. 'joined:' .. leader) >= tonumber(most) then
      return {-1}
    end
    given.joins = leader
    if priority > tonumber(get(leader, 'priority')) then
      change(leader, {'priority', given.priority})
    end
  else
    local here = call('ZCARD', P .. 'wait:' .. guild) + call('ZCARD', P .. 'later:' .. guild)
    if here >= tonumber(most) then
      return {-1}
    end
    local running, room, seen = 0, 0, call('ZRANGEBYSCORE', P .. 'workers', text(now - SEEN_S), '+inf')
    for _, worker in ipairs(seen) do
      room = room + (tonumber(call('HGET', P .. 'worker:' .. worker, 'slots')) or 0)
    end
    for _, number in ipairs(call('HVALS', P .. 'slots')) do
      running = running + tonumber(number)
    end
    room = room > 0 and room or tonumber(slots)
    local waiting = tonumber(call('GET', P .. 'waiting') or 0)
    local mine = call('ZCARD', P .. 'waits:' .. user) + count('downloading', user)
    if running + waiting >= room or mine >= per_user
        or count('running', guild) + here >= tonumber(per_guild) then
      position = 1 + count_to(guild, place(priority, STEP - 1))
    end
  end
  given.position = position > 0 and text(position) or nil
  given.seq = text(call('INCR', P .. 'seq'))
  local row = {}
  for name, value in pairs(given) do
    table.insert(row, name)
    table.insert(row, value)
  end
  call('HSET', P .. 'job:' .. id, unpack(row))
  call('HSET', P .. 'requests', key, id)
  link(read(id))
  refresh(guild)
  tell(id, '')
  return {1, position, given.joins or ''}
end

-- The job to claim: of the highest priority, of the guild with the fewest running, the
-- oldest.
local function next_job(per_guild)
  for priority = 2, 0, -1 do
    while true do
      local head = call('ZRANGE', P .. 'ready:' .. priority, 0, 0, 'WITHSCORES')
      if #head == 0 or math.floor(tonumber(head[2]) / STEP) >= per_guild then
        break
      end
      local id = first_of(head[1])
      if id and get(id, 'priority') == tostring(priority) then
        return id
      end
      refresh(head[1]) -- another process has other limits
    end
  end
end

-- worker, token of this try, lease, slots, per guild, version
function verbs.claim(worker, token, lease_s, slots, per_guild, version)
  local mine = P .. 'worker:' .. worker
  local last = call('HMGET', mine, 'token', 'job', 'number')
  call('HSET', mine, 'slots', slots, 'version', version)
  call('ZADD', P .. 'workers', text(now), worker)
  -- It asks again, since the answer was lost.
  if last[1] == token and last[2] and held(last[2], last[3], worker) then
    return row_of(last[2])
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'leases', '-inf', '(' .. text(now), 'LIMIT', 0, TAKEN)) do
    give_back(id, true)
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'delayed', '-inf', '(' .. text(now), 'LIMIT', 0, TAKEN)) do
    change(id, {})
  end
  if count('slots', worker) >= tonumber(slots) then
    return {}
  end
  local id = next_job(tonumber(per_guild))
  if not id then
    return {}
  end
  local number = one_more(id, 'claim_number')
  tell(id, change(id, {
    'status', 'downloading', 'worker', worker, 'claim_number', number,
    'attempts', one_more(id, 'attempts'),
    'lease_until', text(now + tonumber(lease_s)), 'started_at', text(now),
  }))
  call('HSET', mine, 'token', token, 'job', id, 'number', number)
  return row_of(id)
end

-- Returns what is known of each worker that was seen in the last day.
function verbs.workers()
  local found = {}
  call('ZREMRANGEBYSCORE', P .. 'workers', '-inf', text(now - 86400))
  local seen = call('ZRANGE', P .. 'workers', 0, -1, 'WITHSCORES')
  for n = 1, #seen, 2 do
    local about = call('HMGET', P .. 'worker:' .. seen[n], 'version', 'slots')
    local ago, runs = text(now - tonumber(seen[n + 1])), count('slots', seen[n])
    table.insert(found, {seen[n], about[1] or '', about[2] or '', runs, ago})
  end
  return found
end

-- id, claim number, worker, lease; returns when that ends, "" if the claim was lost
function verbs.keep(id, number, worker, lease_s)
  if not held(id, number, worker) then
    return ''
  end
  local until_s = text(now + tonumber(lease_s))
  put(id, 'lease_until', until_s)
  call('ZADD', P .. 'leases', until_s, id)
  return until_s
end

-- The same, and names and values
function verbs.save(id, number, worker, lease_s)
  if not held(id, number, worker) then
    return ''
  end
  local fields, until_s = rest(ARGS + 4), text(now + tonumber(lease_s))
  local was, status = get(id, 'status'), nil
  for n = 1, #fields, 2 do
    status = fields[n] == 'status' and fields[n + 1] or status
  end
  if status == was then -- nothing else follows from what a holder stores
    for n = 1, #fields, 2 do
      put(id, fields[n], fields[n + 1])
    end
    return verbs.keep(id, number, worker, lease_s)
  end
  table.insert(fields, 'lease_until')
  table.insert(fields, until_s)
  tell(id, change(id, fields))
  return until_s
end

-- id, claim number, worker, delay, names and values; returns when it is due, "" if the
-- claim was lost
function verbs.release(id, number, worker, delay_s)
  if not held(id, number, worker) then
    return ''
  end
  local fields, due = rest(ARGS + 4), tonumber(delay_s) > 0 and text(now + tonumber(delay_s)) or ''
  for _, value in ipairs({'status', 'queued', 'position', '', 'lease_until', '', 'not_before', due}) do
    table.insert(fields, value)
  end
  tell(id, change(id, fields))
  return due == '' and '0' or due
end

-- id, claim number, worker, names and values; 1, or 0 if the claim was lost
function verbs.finish(id, number, worker)
  if not held(id, number, worker) then
    return 0
  end
  local fields = rest(ARGS + 3)
  table.insert(fields, 'lease_until')
  table.insert(fields, '')
  local previous = change(id, fields)
  if ENDED[get(id, 'status')] then
    end_joined(id)
  end
  if previous ~= get(id, 'status') then
    tell(id, previous)
  end
  return 1
end

-- worker, lease; returns the rows of what it was uploading
function verbs.recover(worker, lease_s)
  for _, guild in ipairs(call('SMEMBERS', P .. 'guilds')) do
    refresh(guild) -- the limits may be other ones now
  end
  local rows, lease = {}, text(now + tonumber(lease_s))
  for _, id in ipairs(call('ZRANGE', P .. 'held:' .. worker, 0, -1)) do
    if get(id, 'status') == 'uploading' then
      local number = one_more(id, 'claim_number')
      change(id, {'claim_number', number, 'lease_until', lease})
      table.insert(rows, row_of(id))
    else
      give_back(id)
    end
  end
  return rows
end

-- id, time, "1" for one that only waits
function verbs.cancel(id, at, waiting_only)
  local status = get(id, 'status')
  local runs = status == 'downloading' or status == 'processing'
  if status ~= 'queued' and not (runs and waiting_only == '') then
    return {}
  end
  local number = one_more(id, 'claim_number')
  change(id, {
    'status', 'cancelled', 'cause', 'cancelled', 'finished_at', at, 'claim_number', number,
  })
  end_joined(id)
  tell(id, status)
  return row_of(id)
end

function verbs.move(id, priority)
  if not read(id).waits then
    return 0
  end
  tell(id, change(id, {'priority', priority}))
  return 1
end

function verbs.position(id)
  local job = read(id)
  if not job.waits then
    return 0
  end
  return count_to(job.guild_id, place(job.priority, job.seq))
end

-- id, name, value: of a field that no other key follows from
function verbs.set(id, name, value)
  if exists(id) then
    put(id, name, value)
  end
end

-- ids whose members were told how they ended
function verbs.told()
  for _, id in ipairs(rest(ARGS)) do
    if exists(id) then
      put(id, 'told', '1')
      call('ZREM', P .. 'untold', id)
    end
  end
end

-- "1" for those with kept files, too, then ids; returns the rows of those removed. Files
-- of a worker that is gone keep nothing.
function verbs.remove(all)
  local rows = {}
  for _, id in ipairs(rest(ARGS + 1)) do
    local job = read(id)
    local kept = get(id, 'folder') ~= ''
    local there = kept and call('ZSCORE', P .. 'workers', job.worker)
    if ENDED[job.status] and (all == '1' or not there) then
      if kept then
        call('XADD', P .. 'forgotten', 'MAXLEN', '~', FORGOTTEN, '*', 'id', id,
          'guild_id', job.guild_id, 'created_at', get(id, 'created_at', '0'))
      end
      table.insert(rows, row_of(id))
      remove(job)
    end
  end
  return rows
end

-- id of a job that was refused, since nobody knew that it was added, or may yet be
function verbs.withdraw(id)
  local job = read(id)
  call('SET', P .. 'withdrawn:' .. id, '1', 'EX', 600)
  local begun = get(id, 'attempts') ~= '' or CLAIMED[job.status]
  if exists(id) and not begun then
    remove(job)
    refresh(job.guild_id)
    let_go(id)
  end
end

-- key, old and new value of a fact, "" for none; whether it has the new one now
function verbs.swap(key, old, new)
  local is = call('HGET', P .. 'facts', key) or ''
  if is ~= old and is ~= new then
    return 0
  end
  if new == '' then
    call('HDEL', P .. 'facts', key)
  else
    call('HSET', P .. 'facts', key, new)
  end
  return 1
end

-- Names and values: how far a job is
function verbs.report()
  call('XADD', P .. 'progress', 'MAXLEN', '~', PROGRESS, '*', unpack(rest(ARGS)))
end

-- requests in a second, "1" for one that is urgent; returns how long to wait, and for
-- others than urgent ones whether to ask again then. A generic cell rate algorithm: the
-- budget is when all requests so far are paid. Only urgent ones may go on credit.
function verbs.turn(per_s, urgent)
  local step, paid = 1 / tonumber(per_s), tonumber(call('GET', P .. 'budget') or 0)
  paid = math.min(now + MAX_TURN_S, math.max(now, paid or 0))
  if urgent == '' and paid > now then
    return {text(paid - now), 1}
  end
  call('SET', P .. 'budget', text(paid + step), 'EX', 60)
  return {text(math.max(0, paid - now - CREDIT * step)), 0}
end

return verbs[verb](unpack(rest(ARGS)))
