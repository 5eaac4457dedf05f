-- Counters in shared memory, in groups that come and go as a whole: what is counted of one endpoint, of one RateLimit,
-- of one circuit breaker. A group is a text, its kind, names and labels, kept once; its counters have short keys.
--
-- A group whose subject left the state goes GONE_AFTER seconds after it last counted. When memory is full those go that
-- have counted least lately, which nginxplus_metrics_dropped_total tells.
--
-- Keys: "=<group>", its number; of each number N: "N", the group; "N@", when it last counted; "N!", since when its
-- subject is gone; "N:<counter>". "~<name>" are totals, which have their place from the start, as have "next" (the last
-- number) and "generation" (counts removals: what workers remember of groups is good for one).

local engine = require "mesh.engine"

local dict = ngx.shared.mesh_metrics
local pairs, ipairs = pairs, ipairs

local AT_ONCE = 100                                     -- groups that are read while requests wait
local SHARE = 0.1                                       -- of the groups that make room for another, at most

local _M = {
    GONE_AFTER = 600,                                   -- long enough for several scrapes
}

-- This worker's: group -> { id =, keys = }.
local known = {}
local generation
local full_until = 0                                    -- nobody looks for room before


-- In each worker's start.
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


-- Groups have other numbers, or are gone: before a number is used.
local function follow()
    local now = dict:get("generation")

    if generation ~= now then
        generation = now
        known = {}
    end
end


local function numbers()
    local found = {}

    for _, key in ipairs(dict:get_keys(0)) do
        local id = key:match("^%d+$")

        if id then
            found[id] = dict:get(id)
        end
    end

    return found
end


-- `ids`: number -> group.
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
    follow()
end


-- Removes the groups that have counted least lately, none that did so within the last second. False: there is none.
local function make_room()
    local idle, now, n = {}, engine.now(), 0

    if now < full_until then
        return false
    end

    for id, group in pairs(numbers()) do
        local last = dict:get(id .. "@") or 0
        n = n + 1

        if last < now - 1 then
            idle[#idle + 1] = { id = id, group = group, last = last }
        end
    end

    table.sort(idle, function(a, b) return a.last < b.last end)

    local oldest, some = {}, math.min(#idle, math.max(1, math.floor(n * SHARE)))

    for i = 1, some do
        oldest[idle[i].id] = idle[i].group
    end

    if some == 0 then
        full_until = now + 1
        return false
    end

    remove(oldest)
    _M.add_total("dropped", some)

    return true
end


-- False: there is no memory for it.
local function put(key, value)
    local ok, err = dict:safe_add(key, value)

    return ok or err == "exists"
end


local function find(group)
    follow()

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

        id = dict:get("=" .. group)                     -- another worker's, if that was faster

        if not (put(id, group) and put(id .. "@", engine.now())) then
            remove { [id] = group }
            return nil
        end
    end

    found = { id = id, keys = {} }
    known[group] = found

    return found
end


local function add(key, n)
    if dict:incr(key, n) then
        return true
    end

    local ok, err = dict:safe_add(key, n)

    return ok or (err == "exists" and dict:incr(key, n) ~= nil)
end


local function try(group, counters)
    local found = find(group)

    if not found then
        return false
    end

    dict:safe_set(found.id .. "@", engine.now())        -- a number in the place of a number: needs no memory

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


-- Adds `counters` (by name; they are 0 afterwards) to a group. What finds no room is lost, and told.
function _M.add(group, counters)
    if try(group, counters) then
        return
    end

    if not (make_room() and try(group, counters)) then
        _M.add_total("dropped", 1)
    end
end


-- `subject` and `member` say what is counted; `labels` are those of the exposition.
function _M.group(kind, subject, member, labels)
    return table.concat({ kind, subject, member, labels }, "\n")
end


-- All groups by kind, in the order of their labels: { kind =, labels =, counters = {} }. Each is of one moment, and is
-- given to `prepare`; requests have their turn in between.
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

    local n = 0

    for id, counters in pairs(names) do
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

        n = n + 1

        if n % AT_ONCE == 0 then
            ngx.sleep(0)
        end
    end

    for _, groups in pairs(found) do
        table.sort(groups, function(a, b) return a.labels < b.labels end)
    end

    return found
end


-- Removes the groups whose subjects are gone for long: of which not `is_there(group, kind, subject, member)`.
function _M.sweep(is_there)
    local now, old, n = engine.now(), {}, 0

    for id, group in pairs(numbers()) do
        local mark = id .. "!"
        local since = dict:get(mark)

        if is_there(group, group:match("^([^\n]*)\n([^\n]*)\n([^\n]*)")) then
            if since then
                dict:delete(mark)
            end
        elseif not since then
            dict:safe_add(mark, now)
        elseif now - math.max(since, dict:get(id .. "@") or 0) >= _M.GONE_AFTER then
            old[id] = group
        end

        n = n + 1

        if n % AT_ONCE == 0 then
            ngx.sleep(0)
        end
    end

    remove(old)
end


return _M
