-- Counters in shared memory, in groups that are added and removed as a whole. A group has what is counted of one
-- endpoint, one RateLimit or one circuit breaker. Its name is a text of its kind, its subject and its labels, which is
-- kept once; its counters have short keys.
--
-- A group whose subject left the state is removed GONE_AFTER seconds after it last counted. When memory is full, the
-- groups that have not counted for the longest time are removed, and nginxplus_metrics_dropped_total counts them.
--
-- Keys of the dictionary:
--
--   "=<group>"    the number of the group
--   "N"           the name of the group with number N
--   "N@"          when the group last counted
--   "N!"          since when the state does not have its subject
--   "N:<counter>" a counter of the group
--   "~<name>"     a total, which belongs to no group and is there from the start
--   "next"        the number that was given last
--   "generation"  counts removals; a worker forgets the numbers that it knows when this changes

local clock = require "mesh.native.clock"

local dict = ngx.shared.mesh_metrics
local pairs, ipairs = pairs, ipairs

local GROUPS_AT_ONCE = 100                              -- are read before requests have their turn
local REMOVED_SHARE = 0.1                               -- of the groups, at most, are removed to make room for another

local _M = {
    GONE_AFTER = 600,                                   -- seconds: enough for several scrapes
}

-- What this worker knows: group -> { id =, keys = counter -> key }.
local known = {}
local generation
local full_until = 0                                    -- until then nobody looks for room again


-- In each worker's start. `totals` are the names of all totals.
function _M.start(totals)
    for _, name in ipairs { "next", "generation" } do
        dict:safe_add(name, 0)
    end

    for _, name in ipairs(totals) do
        dict:safe_add("~" .. name, 0)
    end
end


function _M.add_total(name, n)
    if n > 0 then
        dict:incr("~" .. name, n)
    end
end


function _M.total(name)
    return dict:get("~" .. name) or 0
end


-- Forgets the numbers of groups when groups were removed. To be called before a number is used.
local function forget_removed()
    local now = dict:get("generation")

    if generation ~= now then
        generation = now
        known = {}
    end
end


-- All groups: number -> name.
local function all_groups()
    local found = {}

    for _, key in ipairs(dict:get_keys(0)) do
        local id = key:match("^%d+$")

        if id then
            found[id] = dict:get(id)
        end
    end

    return found
end


-- As pairs(entries), but requests have their turn after each GROUPS_AT_ONCE entries.
local function pairs_with_turns(entries)
    local n = 0

    return function(_, key)
        if n == GROUPS_AT_ONCE then
            n = 0
            ngx.sleep(0)
        end

        n = n + 1

        return next(entries, key)
    end
end


-- Removes groups, given as number -> name.
local function remove(ids)
    if not next(ids) then
        return
    end

    for _, group in pairs(ids) do
        dict:delete("=" .. group)
    end

    for _, key in ipairs(dict:get_keys(0)) do
        local id = key:match("^(%d+)[@!:]?")

        if id and ids[id] then
            dict:delete(key)
        end
    end

    dict:incr("generation", 1)
    forget_removed()
end


-- Removes the groups that have not counted for the longest time, but none that counted within the last second. Returns
-- false when there is none to remove.
local function make_room()
    local idle, now, n = {}, clock.now(), 0

    if now < full_until then
        return false
    end

    for id, group in pairs(all_groups()) do
        local last = dict:get(id .. "@") or 0
        n = n + 1

        if last < now - 1 then
            idle[#idle + 1] = { id = id, group = group, last = last }
        end
    end

    table.sort(idle, function(a, b) return a.last < b.last end)

    local oldest, removed = {}, math.min(#idle, math.max(1, math.floor(n * REMOVED_SHARE)))

    for i = 1, removed do
        oldest[idle[i].id] = idle[i].group
    end

    if removed == 0 then
        full_until = now + 1
        return false
    end

    remove(oldest)
    _M.add_total("dropped", removed)

    return true
end


-- Adds a value that may be there already. Returns false when there is no memory for it.
local function put(key, value)
    local ok, err = dict:safe_add(key, value)

    return ok or err == "exists"
end


-- What this worker knows of a group, which is added if it is new; nil when there is no memory for it.
local function find(group)
    forget_removed()

    local found = known[group]

    if found then
        return found
    end

    local id = dict:get("=" .. group)

    if not id then
        id = tostring(dict:incr("next", 1))

        if not put("=" .. group, id) then
            return nil
        end

        id = dict:get("=" .. group)                     -- another worker may have been faster

        if not (put(id, group) and put(id .. "@", clock.now())) then
            remove { [id] = group }
            return nil
        end
    end

    found = { id = id, keys = {} }
    known[group] = found

    return found
end


-- Adds to a counter. Returns false when there is no memory for it.
local function add(key, n)
    if dict:incr(key, n) then
        return true
    end

    local ok, err = dict:safe_add(key, n)

    return ok or (err == "exists" and dict:incr(key, n) ~= nil)
end


-- Adds counters to a group, and sets those to 0 that were added. Returns false when memory was too short for all.
local function try(group, counters)
    local found = find(group)

    if not found then
        return false
    end

    -- A number is changed in place, which needs no memory.
    dict:safe_set(found.id .. "@", clock.now())

    for counter, n in pairs(counters) do
        local key = found.keys[counter]

        if not key then
            key = found.id .. ":" .. counter
            found.keys[counter] = key
        end

        if n > 0 then
            if not add(key, n) then
                return false
            end

            counters[counter] = 0
        end
    end

    return true
end


-- Adds `counters` (by name; they are 0 afterwards) to a group. What finds no room is lost, which the total "dropped"
-- counts.
function _M.add(group, counters)
    if try(group, counters) then
        return
    end

    if not (make_room() and try(group, counters)) then
        _M.add_total("dropped", 1)
    end
end


-- The name of a group. `subject` and `member` say what is counted; `labels` are those of the exposition.
function _M.group(kind, subject, member, labels)
    return table.concat({ kind, subject, member, labels }, "\n")
end


-- All groups by kind, in the order of their labels. A group has its `kind`, `labels` and `counters`, which are of one
-- moment, and is given to `prepare(group)`. Requests have their turn between some groups and the next.
function _M.groups(prepare)
    local names, found = {}, {}

    for _, key in ipairs(dict:get_keys(0)) do
        local id, counter = key:match("^(%d+):(.*)$")

        if id then
            names[id] = names[id] or {}
            table.insert(names[id], counter)
        elseif key:find("^%d+$") then
            names[key] = names[key] or {}
        end
    end

    for id, counters in pairs_with_turns(names) do
        local kind, labels = (dict:get(id) or ""):match("^([^\n]*)\n[^\n]*\n[^\n]*\n(.*)$")

        if kind then
            local group = { kind = kind, labels = labels, counters = {} }

            for _, counter in ipairs(counters) do
                group.counters[counter] = dict:get(id .. ":" .. counter)
            end

            prepare(group)
            found[kind] = found[kind] or {}
            table.insert(found[kind], group)
        end
    end

    for _, groups in pairs(found) do
        table.sort(groups, function(a, b) return a.labels < b.labels end)
    end

    return found
end


-- Removes the groups whose subjects are gone for long: those for which `is_there(group, kind, subject, member)` has
-- been false for GONE_AFTER seconds.
function _M.sweep(is_there)
    local now, old = clock.now(), {}

    for id, group in pairs_with_turns(all_groups()) do
        local gone_key = id .. "!"
        local since = dict:get(gone_key)

        if is_there(group, group:match("^([^\n]*)\n([^\n]*)\n([^\n]*)")) then
            if since then
                dict:delete(gone_key)
            end
        elseif not since then
            dict:safe_add(gone_key, now)
        elseif now - math.max(since, dict:get(id .. "@") or 0) >= _M.GONE_AFTER then
            old[id] = group
        end
    end

    remove(old)
end


return _M
