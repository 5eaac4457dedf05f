-- The state in shared memory: entries as JSON under their keys, so that they outlive a worker, and the version of the
-- whole. Keys of the dictionary that begin with "@" are not the state's: "@version" is the version, and
-- state/workers.lua keeps its own.

local dict = ngx.shared.mesh_state
local pairs, ipairs = pairs, ipairs

local AT_SIGN = 64

local _M = {}


-- In each worker's start. A number is changed in place, so this one never needs memory again.
function _M.start()
    dict:safe_add("@version", 0)
end


-- The version of the state; 0 before the first one, and when it is not known which one there is.
function _M.version()
    return dict:get("@version") or 0
end


function _M.set_version(version)
    dict:safe_set("@version", version)
end


-- The JSON of an entry; nil when the state does not have it.
function _M.get(key)
    return dict:get(key)
end


-- The keys of all entries, in no order.
function _M.keys()
    local keys = {}

    for _, key in ipairs(dict:get_keys(0)) do
        if key:byte() ~= AT_SIGN then
            keys[#keys + 1] = key
        end
    end

    return keys
end


-- Records that the entries may not be what the control plane believes: it hears of version 0 and sends a full state.
function _M.invalidate(reason)
    ngx.log(ngx.ERR, "the state is in doubt: ", reason)
    _M.set_version(0)
end


-- All old entries are deleted before any new one is written: they may hold the memory that the new ones need.
local function write(entries)
    for key in pairs(entries) do
        dict:delete(key)
    end

    for key, raw in pairs(entries) do
        if raw then
            -- set() instead of safe_set() would make room by dropping other entries.
            local ok, err = dict:safe_set(key, raw)

            if not ok then
                return nil, err
            end
        end
    end

    return true
end


-- Writes all changes (key -> JSON, or false to delete), or none of them when memory is short. Returns true, or nil and
-- the reason.
function _M.write(changes)
    local before = {}

    for key in pairs(changes) do
        before[key] = dict:get(key) or false
    end

    local ok, err = write(changes)

    if not ok then
        local restored, reason = write(before)

        if not restored then
            _M.invalidate(reason)
        end
    end

    return ok, err
end


return _M
