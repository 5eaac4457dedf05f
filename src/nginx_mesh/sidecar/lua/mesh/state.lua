-- The state of the sidecar: takes updates from the control plane, and gives the other modules what they ask of it.
--
-- Entries are kept in shared memory (state/store.lua) and loaded by each worker (state/entries.lua, state/routes.lua).

local cjson = require "cjson"
local entries = require "mesh.state.entries"
local native_identity = require "mesh.native.identity"
local plan = require "mesh.state.plan"
local routes = require "mesh.state.routes"
local schema = require "mesh.schema"
local store = require "mesh.state.store"
local workers = require "mesh.state.workers"

local pairs = pairs

local _M = {
    version = store.version,
    settings = entries.settings,
    spiffe_id = entries.spiffe_id,
    inbound = entries.inbound,
    destination = entries.destination,
    probe = entries.probe,
    ratelimits = entries.ratelimits,
    load = routes.load,
    breakers = routes.breakers,
    on_change = routes.on_change,
}


local function load_keys(keys)
    for _, key in ipairs(keys) do
        entries.load(key)
    end
end


-- In each worker's start, also after a crash of its predecessor.
function _M.start()
    store.start()
    workers.start(entries.load_all, load_keys)
end


local function load_changes(changes)
    local touched = {}

    routes.begin_batch()

    for key in pairs(changes) do
        touched[#touched + 1] = key
        entries.load(key)
    end

    return touched
end


local function refuse(key, reason)
    return 400, { error = reason, key = key }
end


-- Applies an update (Update in the Python schema of the state). Returns the HTTP status and the answer.
function _M.apply(update)
    local reason = schema.check_update(update)
    if reason then
        return refuse(nil, "update " .. reason)
    end

    local version = store.version()

    if update.base ~= cjson.null and update.base ~= version then
        return 409, { version = version }
    end

    local changes, key
    changes, key, reason = plan.changes(update, store, version ~= 0)
    if not changes then
        return refuse(key, reason)
    end

    -- The identity comes first, as only its use shows whether key, SVID and bundle belong together.
    local identity = update.set and update.set.identity
    if identity then
        reason = native_identity.put(identity)
        if reason then
            return refuse("identity", reason)
        end
    end

    local ok, err = store.write(changes)
    if not ok then
        return 507, { error = "the state does not fit: " .. err }
    end

    local loaded, touched = pcall(load_changes, changes)
    routes.end_batch()

    if not loaded then
        store.invalidate(touched)
        return 500, { error = tostring(touched) }
    end

    workers.publish(touched)
    store.set_version(update.version)

    if not workers.wait() then
        return 503, { error = "a worker does not follow" }
    end

    return 200, { version = update.version }
end


-- An entry of the state as it came, whether or not it is in use; nil when the state does not have it.
function _M.entry(key)
    local raw = store.get(key)

    return raw and cjson.decode(raw)
end


-- A cluster of the state, without taking it into use; nil when the state does not have it.
function _M.cluster(name)
    return routes.cluster(name) or _M.entry("cluster/" .. name)
end


return _M
