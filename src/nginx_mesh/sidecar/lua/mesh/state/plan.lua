-- Works out what an update changes. Pure: the present state is asked for by functions.

local cjson = require "cjson"
local schema = require "mesh.schema"

local pairs, ipairs = pairs, ipairs

local _M = {}


-- Adds deletions to `changes`. Returns nil, or the key and the reason of a refusal.
local function plan_deletions(changes, update, set, state)
    for _, key in ipairs(update.delete or {}) do
        local reason = schema.check_key(key)
        if reason then
            return key, reason
        end

        changes[key] = false
    end

    if changes.settings == false and not set.settings then
        return "settings", "a state cannot be without them"
    end

    if update.base == cjson.null then
        if not set.settings then
            return "settings", "a full state has to set them"
        end

        for _, key in ipairs(state.keys()) do
            if set[key] == nil then
                changes[key] = false
            end
        end
    end
end


-- Adds to `set` the clusters of which single endpoints change. Returns nil, or the key and the reason of a refusal.
local function plan_endpoints(changes, update, set, state)
    for name, patch in pairs(update.endpoints or {}) do
        local key = "cluster/" .. name
        local cluster = set[key]

        if not cluster then
            local raw = changes[key] == nil and state.get(key)
            if not raw then
                return key, "endpoints of a cluster that the state does not have"
            end

            cluster = cjson.decode(raw)
            set[key] = cluster
        end

        for address, endpoint in pairs(patch) do
            cluster.endpoints[address] = endpoint ~= cjson.null and endpoint or nil
        end
    end
end


-- Returns the changes of an update, key -> JSON or false to delete; or nil, the key and the reason of a refusal.
--
-- `update` has passed schema.check_update(); its `set` is changed. `state` has functions `get(key)`, the JSON of an
-- entry, and `keys()`. `certain` is false when an update that failed may have left any entries: then entries are
-- written that seem to be there already.
function _M.changes(update, state, certain)
    local changes = {}
    local set = update.set or {}

    for key, value in pairs(set) do
        local reason = schema.check_entry(key, value)
        if reason then
            return nil, key, reason
        end
    end

    local key, reason = plan_deletions(changes, update, set, state)
    if key then
        return nil, key, reason
    end

    key, reason = plan_endpoints(changes, update, set, state)
    if key then
        return nil, key, reason
    end

    for name, value in pairs(set) do
        local raw = cjson.encode(value)
        changes[name] = not (certain and raw == state.get(name)) and raw or nil
    end

    return changes
end


return _M
