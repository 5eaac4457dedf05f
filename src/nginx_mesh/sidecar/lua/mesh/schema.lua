-- Checks what the control plane sends before any of it is stored. A check returns nil, or the reason of a refusal.

local check = require "mesh.schema.check"
local formats = require "mesh.schema.formats"
local shapes = require "mesh.schema.shapes"

local _M = {}


-- The kind and the name of a key: "inbound/80" -> "inbound", "80"; "settings" -> "settings", nil.
function _M.split_key(key)
    local slash = key:find("/", 1, true)

    if not slash then
        return key, nil
    end

    return key:sub(1, slash - 1), key:sub(slash + 1)
end


function _M.check_key(key)
    if type(key) ~= "string" then
        return "is not a key"
    end

    if shapes.SINGLE[key] then
        return nil
    end

    local kind, name = _M.split_key(key)

    if not shapes.KEYED[kind] or not name or name == "" then
        return "is not a key of the state"
    end

    return formats[shapes.KEY_FORMATS[kind]](name)
end


function _M.check_entry(key, value)
    local reason = _M.check_key(key)
    if reason then
        return reason
    end

    local kind = _M.split_key(key)

    return check(shapes.SINGLE[kind] or shapes.KEYED[kind], value)
end


-- Checks the shape of an update. Its entries are checked one by one (check_entry).
function _M.check_update(update)
    return check(shapes.UPDATE, update)
end


-- Checks what a tap asks for.
function _M.check_tap(tap)
    return check(shapes.TAP, tap)
end


return _M
