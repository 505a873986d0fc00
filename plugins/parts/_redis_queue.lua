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
local FIELDS = 500 -- names and values of a job; no honest one comes near
local SEEN_S = 10 -- a worker that was not seen for so long has no slots
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

local time = clock ~= '' and clock or string.format('%s.%06d', unpack(call('TIME')))
local now = tonumber(time)

-- A job is the table of its fields as they are stored; what is missing is "".

local BLANK = {__index = function() return '' end}

local function job_of(id, flat)
  local job = {}
  for n = 1, #flat, 2 do
    job[flat[n]] = flat[n + 1]
  end
  job.id = id
  return setmetatable(job, BLANK)
end

local function read(id)
  return job_of(id, call('HGETALL', P .. 'job:' .. id))
end

local function waits(job)
  return job.status == 'queued' and job.joins == ''
end

local function exists(id)
  return call('EXISTS', P .. 'job:' .. id) == 1
end

local function get(id, name, default)
  return call('HGET', P .. 'job:' .. id, name) or default or ''
end

local function number_in(job, name) -- whoever wrote it
  return tonumber(job[name]) and job[name] or '0'
end

local function one_more(job, name)
  return string.format('%d', (tonumber(job[name]) or 0) + 1)
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
  return string.format('%d', (2 - tonumber(priority)) * STEP + tonumber(seq))
end

local function count_to(guild, last) -- all that wait up to a place in its line
  return call('ZCOUNT', P .. 'wait:' .. guild, '-inf', last)
    + call('ZCOUNT', P .. 'later:' .. guild, '-inf', last)
end

-- Whether what wait:<guild> holds is one of its waiting jobs, whoever wrote it.
local function in_line(guild, row)
  return row.status == 'queued' and not row.joins and (row.guild_id or '0') == guild
    and string.find(row.priority or '', '^[012]$') and string.find(row.seq or '', '^%d+$')
end

-- A guild's first job whose member has not his share running, its priority and seq.
local function first_of(guild)
  local from, known, ids = 0, {}, nil
  repeat
    ids = call('ZRANGE', P .. 'wait:' .. guild, from, from + 9)
    from = from + #ids
    for _, id in ipairs(ids) do
      local row, names = {}, {'user_id', 'priority', 'seq', 'status', 'joins', 'guild_id'}
      for n, value in ipairs(call('HMGET', P .. 'job:' .. id, unpack(names))) do
        row[names[n]] = value
      end
      local user = row.user_id or '0'
      if known[user] == nil then
        known[user] = sated(user)
      end
      if not in_line(guild, row) then
        from = from - call('ZREM', P .. 'wait:' .. guild, id)
      elseif not known[user] then
        return id, row.priority, row.seq
      end
    end
  until #ids < 10
end

local function refresh(guild)
  local id, priority, seq = first_of(guild)
  for one = 0, 2 do
    if id and priority == tostring(one) then
      local score = count('running', guild) * STEP + tonumber(seq or 0)
      call('ZADD', P .. 'ready:' .. one, string.format('%d', score), guild)
    else
      call('ZREM', P .. 'ready:' .. one, guild)
    end
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

local function lead(same, id, leads)
  local ids = {}
  for _, other in ipairs(same_as(same)) do
    if other ~= id then
      table.insert(ids, other)
    end
  end
  if leads then
    table.insert(ids, id)
  end
  if #ids == 0 then
    call('HDEL', P .. 'same', same)
    return
  end
  if #ids > 1 then
    table.sort(ids, function(a, b)
      return tonumber(get(a, 'seq', 0)) < tonumber(get(b, 'seq', 0))
    end)
  end
  call('HSET', P .. 'same', same, table.concat(ids, ','))
end

-- What follows from a job: its score in each set, the field of each count that it is
-- counted in, whether it waits, and what is the same that it leads.
local function follows(job, delayed)
  local sets, counts, status = {}, {}, job.status
  local guild, user, seq = number_in(job, 'guild_id'), number_in(job, 'user_id'), number_in(job, 'seq')
  if ENDED[status] then
    local at = job.finished_at == '' and '0' or job.finished_at
    sets.ended, sets['ended:' .. guild], sets['member:' .. user] = at, at, seq
    if job.told == '' then
      sets.untold = at
    end
    return {sets = sets, counts = counts}
  end
  local waiting = waits(job)
  if waiting then
    local line = 'wait:'
    if delayed then
      line, sets.delayed = 'later:', job.not_before
    end
    sets[line .. guild] = place(number_in(job, 'priority'), seq)
    sets['waits:' .. user] = seq
  else
    sets['busy:' .. guild], sets['member:' .. user] = seq, seq
  end
  if job.joins ~= '' then
    sets['joined:' .. job.joins] = seq
  end
  if CLAIMED[status] then
    sets['held:' .. job.worker] = seq
    sets.leases = job.lease_until == '' and '0' or job.lease_until
    if status == 'downloading' then
      counts.running, counts.slots, counts.downloading = guild, job.worker, user
    elseif status == 'processing' then
      counts.processing = user
    end
  end
  local leads = job.joins == '' and job.same ~= '' and job.same or nil
  return {sets = sets, counts = counts, waits = waiting, leads = leads, open = true}
end

local NOTHING = {sets = {}, counts = {}}

-- Bring all other keys from what followed from a job to what follows now.
local function settle(job, was, is)
  local id, guild, user = job.id, number_in(job, 'guild_id'), number_in(job, 'user_id')
  local line, before = 'wait:' .. guild, nil
  local others = was.counts.downloading ~= is.counts.downloading
    or was.counts.processing ~= is.counts.processing
  if others then
    before = sated(user)
  end
  for key, score in pairs(is.sets) do
    if was.sets[key] ~= score then
      call('ZADD', P .. key, score, id)
    end
  end
  for key in pairs(was.sets) do
    if not is.sets[key] then
      call('ZREM', P .. key, id)
    end
  end
  for key, field in pairs(was.counts) do
    if is.counts[key] ~= field then
      add_up(key, field, -1)
    end
  end
  for key, field in pairs(is.counts) do
    if was.counts[key] ~= field then
      add_up(key, field, 1)
    end
  end
  if was.waits ~= is.waits then
    call('INCRBY', P .. 'waiting', (is.waits and 1 or 0) - (was.waits and 1 or 0))
  end
  if was.leads ~= is.leads then
    if was.leads then
      lead(was.leads, id, false)
    end
    if is.leads then
      lead(is.leads, id, true)
    end
  end
  if is.open and not was.open then
    call('SADD', P .. 'guilds', guild)
  elseif was.open and not is.open
      and call('EXISTS', P .. line, P .. 'later:' .. guild, P .. 'busy:' .. guild) == 0 then
    call('SREM', P .. 'guilds', guild)
  end
  if was.sets[line] ~= is.sets[line] or was.counts.running ~= is.counts.running then
    refresh(guild)
  end
  if others and sated(user) ~= before then
    refresh_all_of(user)
  end
end

-- Give fields of a job other values; "" is a default. Returns its status before.
local function change(job, fields)
  local key, status, set, gone = P .. 'job:' .. job.id, job.status, {}, {}
  local delayed = job.not_before ~= '' and call('ZSCORE', P .. 'delayed', job.id)
  local was = follows(job, delayed)
  for name, value in pairs(fields) do
    if job[name] ~= value then
      if value == '' then
        job[name] = nil
        gone[#gone + 1] = name
      else
        job[name] = value
        set[#set + 1] = name
        set[#set + 1] = value
      end
    end
  end
  if #set > 0 then
    call('HSET', key, unpack(set))
  end
  if #gone > 0 then
    call('HDEL', key, unpack(gone))
  end
  settle(job, was, follows(job, (tonumber(job.not_before) or 0) >= now))
  return status
end

local function row_of(job)
  local row = {}
  for name, value in pairs(job) do
    if #row < FIELDS then
      row[#row + 1] = name
      row[#row + 1] = value
    end
  end
  return unpack(row)
end

local function tell(job, previous)
  call('XADD', P .. 'changes', 'MAXLEN', '~', CHANGES, '*', 'previous', previous, row_of(job))
  if job.status ~= 'downloading' and previous ~= 'uploading' or job.status == 'queued' then
    call('XADD', P .. 'signals', 'MAXLEN', '~', SIGNALS, '*', 'id', job.id, 'status', job.status)
  end
end

local function remove(job)
  local delayed = job.not_before ~= '' and call('ZSCORE', P .. 'delayed', job.id)
  settle(job, follows(job, delayed), NOTHING)
  call('HDEL', P .. 'requests', job.request_key)
  call('DEL', P .. 'job:' .. job.id)
end

-- Jobs that have joined another

local function joined(id)
  local jobs = {}
  for n, one in ipairs(call('ZRANGE', P .. 'joined:' .. id, 0, -1)) do
    jobs[n] = read(one)
  end
  return jobs
end

-- The oldest of each channel waits, joined by the others there.
local function let_go(id)
  local first, oldest = {}, {}
  for _, one in ipairs(joined(id)) do
    local channel = one.channel_id
    if first[channel] then
      change(one, {joins = first[channel]})
    else
      first[channel] = one.id
      table.insert(oldest, one)
    end
  end
  for _, one in ipairs(oldest) do
    change(one, {joins = ''})
  end
  for _, one in ipairs(oldest) do
    tell(one, '') -- for the line it is new
  end
end

local function end_joined(job)
  if OWN[job.cause] then
    return let_go(job.id)
  end
  local began = job.started_at
  for _, one in ipairs(joined(job.id)) do
    local came = one.created_at
    local later = (tonumber(came) or 0) > (tonumber(began) or 0)
    local fields = {status = job.status, started_at = later and came or began}
    for _, name in ipairs(SHARED) do
      fields[name] = job[name]
    end
    tell(one, change(one, fields))
  end
end

-- A claimed job as its holder knows it; nil if another has it, or it has ended.
local function held(id, number, worker)
  local job = read(id)
  if CLAIMED[job.status] and job.worker == worker and job.claim_number == number then
    return job
  end
end

-- ``taken`` from a worker that is gone, with the files: what is posted, or may be, stays
-- so, and the others are downloaded anew.
local function give_back(job, taken)
  local fields = {status = 'queued', worker = '', position = '', not_before = ''}
  if taken then
    fields.sources = ''
  end
  tell(job, change(job, fields))
end

-- The verbs. Each is a block, and none a function: to make them all takes longer than
-- most of them run.

-- id, most that may wait, per guild, slots where no worker is known, fields
if verb == 'add' then
  local id, most, per_guild, slots, fields = unpack(ARGV, ARGS)
  local given = cjson.decode(fields)
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
      change(read(leader), {priority = given.priority})
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
  given.id = id
  local job = setmetatable(given, BLANK)
  call('HSET', P .. 'job:' .. id, row_of(job))
  call('HSET', P .. 'requests', key, id)
  settle(job, NOTHING, follows(job))
  tell(job, '')
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
      local id, its = first_of(head[1])
      if id and its == tostring(priority) then
        return read(id)
      end
      refresh(head[1]) -- another process has other limits
    end
  end
end

-- worker, token of this try, lease, slots, per guild, version
if verb == 'claim' then
  local worker, token, lease_s, slots, per_guild, version = unpack(ARGV, ARGS)
  local mine = P .. 'worker:' .. worker
  local known = call('HMGET', mine, 'slots', 'version')
  if known[1] ~= slots or known[2] ~= version then
    call('HSET', mine, 'slots', slots, 'version', version)
  end
  call('ZADD', P .. 'workers', time, worker)
  for _, id in ipairs(call('ZRANGE', P .. 'held:' .. worker, 0, -1)) do
    if get(id, 'token') == token then -- it asks again, since the answer was lost
      return cjson.encode(read(id))
    end
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'leases', '-inf', '(' .. time, 'LIMIT', 0, TAKEN)) do
    local job = read(id)
    if CLAIMED[job.status] then
      give_back(job, true)
    else
      call('ZREM', P .. 'leases', id)
    end
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'delayed', '-inf', '(' .. time, 'LIMIT', 0, TAKEN)) do
    local job = read(id)
    if waits(job) and job.not_before ~= '' then
      change(job, {})
    end
    call('ZREM', P .. 'delayed', id)
  end
  if count('slots', worker) >= tonumber(slots) then
    return ''
  end
  local job = next_job(tonumber(per_guild))
  if not job then
    return ''
  end
  tell(job, change(job, {
    status = 'downloading', worker = worker, claim_number = one_more(job, 'claim_number'),
    attempts = one_more(job, 'attempts'),
    lease_until = text(now + tonumber(lease_s)), started_at = time, token = token,
  }))
  return cjson.encode(job)
end

-- Returns what is known of each worker that was seen in the last day.
if verb == 'workers' then
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

-- id, claim number, worker, lease, and to save: fields; returns when the lease ends, "" if
-- the claim was lost
if verb == 'save' or verb == 'keep' then
  local id, number, worker, lease_s, given = unpack(ARGV, ARGS)
  local job = held(id, number, worker)
  if not job then
    return ''
  end
  local fields = given and cjson.decode(given) or {}
  fields.lease_until = text(now + tonumber(lease_s))
  local previous = change(job, fields)
  if previous ~= job.status then
    tell(job, previous)
  end
  return fields.lease_until
end

-- id, claim number, worker, delay, fields; returns when it is due, "" if the claim was
-- lost
if verb == 'release' then
  local id, number, worker, delay_s, given = unpack(ARGV, ARGS)
  local job = held(id, number, worker)
  if not job then
    return ''
  end
  local fields, due = cjson.decode(given), tonumber(delay_s) > 0 and text(now + tonumber(delay_s)) or ''
  fields.status, fields.position, fields.lease_until, fields.not_before = 'queued', '', '', due
  tell(job, change(job, fields))
  return due == '' and '0' or due
end

-- id, claim number, worker, fields; 1, or 0 if the claim was lost
if verb == 'finish' then
  local id, number, worker, given = unpack(ARGV, ARGS)
  local job = held(id, number, worker)
  if not job then
    return 0
  end
  local fields = cjson.decode(given)
  fields.lease_until = ''
  local previous = change(job, fields)
  if ENDED[job.status] then
    end_joined(job)
  end
  if previous ~= job.status then
    tell(job, previous)
  end
  return 1
end

-- worker, lease; returns the rows of what it was uploading
if verb == 'recover' then
  local worker, lease_s = unpack(ARGV, ARGS)
  for _, guild in ipairs(call('SMEMBERS', P .. 'guilds')) do
    refresh(guild) -- the limits may be other ones now
  end
  local rows, lease = {}, text(now + tonumber(lease_s))
  for _, id in ipairs(call('ZRANGE', P .. 'held:' .. worker, 0, -1)) do
    local job = read(id)
    if job.worker ~= worker or not CLAIMED[job.status] then
      call('ZREM', P .. 'held:' .. worker, id)
    elseif job.status == 'uploading' then
      change(job, {claim_number = one_more(job, 'claim_number'), lease_until = lease})
      table.insert(rows, cjson.encode(job))
    else
      give_back(job)
    end
  end
  return rows
end

-- id, time, "1" for one that only waits
if verb == 'cancel' then
  local id, at, waiting_only = unpack(ARGV, ARGS)
  local job = read(id)
  local status = job.status
  local runs = status == 'downloading' or status == 'processing'
  if status ~= 'queued' and not (runs and waiting_only == '') then
    return ''
  end
  change(job, {
    status = 'cancelled', cause = 'cancelled', finished_at = at,
    claim_number = one_more(job, 'claim_number'),
  })
  end_joined(job)
  tell(job, status)
  return cjson.encode(job)
end

if verb == 'move' then
  local id, priority = unpack(ARGV, ARGS)
  local job = read(id)
  if not waits(job) then
    return 0
  end
  tell(job, change(job, {priority = priority}))
  return 1
end

if verb == 'position' then
  local id = unpack(ARGV, ARGS)
  local job = read(id)
  if not waits(job) then
    return 0
  end
  local guild, priority = number_in(job, 'guild_id'), number_in(job, 'priority')
  return count_to(guild, place(priority, number_in(job, 'seq')))
end

-- id, name, value: of a field that no other key follows from
if verb == 'set' then
  local id, name, value = unpack(ARGV, ARGS)
  if value == '' then
    call('HDEL', P .. 'job:' .. id, name)
  elseif exists(id) then
    call('HSET', P .. 'job:' .. id, name, value)
  end
  return
end

-- ids whose members were told how they ended
if verb == 'told' then
  for _, id in ipairs({unpack(ARGV, ARGS)}) do
    if exists(id) then
      change(read(id), {told = '1'})
    end
  end
  return
end

-- "1" for those with kept files, too, then ids; returns the rows of those removed. Files
-- of a worker that is gone keep nothing.
if verb == 'remove' then
  local all = unpack(ARGV, ARGS)
  local rows = {}
  for _, id in ipairs({unpack(ARGV, ARGS + 1)}) do
    local job = read(id)
    local kept = job.folder ~= ''
    local there = kept and call('ZSCORE', P .. 'workers', job.worker)
    if ENDED[job.status] and (all == '1' or not there) then
      if kept then
        local created = job.created_at ~= '' and job.created_at or '0'
        call('XADD', P .. 'forgotten', 'MAXLEN', '~', FORGOTTEN, '*', 'id', id,
          'guild_id', number_in(job, 'guild_id'), 'created_at', created)
      end
      table.insert(rows, cjson.encode(job))
      remove(job)
    end
  end
  return rows
end

-- id of a job that was refused, since nobody knew that it was added, or may yet be
if verb == 'withdraw' then
  local id = unpack(ARGV, ARGS)
  local job = read(id)
  call('SET', P .. 'withdrawn:' .. id, '1', 'EX', 600)
  local begun = job.attempts ~= '' or CLAIMED[job.status]
  if job.status ~= '' and not begun then
    remove(job)
    let_go(id)
  end
  return
end

-- key and value of a fact, "" for none, and the old one if it has to be that; whether it
-- has the new one then
if verb == 'fact' then
  local key, new, old = unpack(ARGV, ARGS)
  local is = call('HGET', P .. 'facts', key) or ''
  if old and is ~= old and is ~= new then
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
if verb == 'report' then
  call('XADD', P .. 'progress', 'MAXLEN', '~', PROGRESS, '*', unpack(ARGV, ARGS))
  return
end

-- requests in a second, "1" for one that is urgent; returns how long to wait, and for
-- others than urgent ones whether to ask again then. A generic cell rate algorithm: the
-- budget is when all requests so far are paid. Only urgent ones may go on credit.
if verb == 'turn' then
  local per_s, urgent = unpack(ARGV, ARGS)
  local step, paid = 1 / tonumber(per_s), tonumber(call('GET', P .. 'budget') or 0)
  paid = math.min(now + MAX_TURN_S, math.max(now, paid or 0))
  if urgent == '' and paid > now then
    return {text(paid - now), 1}
  end
  call('SET', P .. 'budget', text(paid + step), 'EX', 60)
  return {text(math.max(0, paid - now - CREDIT * step)), 0}
end

error('there is no verb ' .. verb)
