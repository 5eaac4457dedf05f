-- Puts the pod's SVID and the trust bundles into the C module.

local ffi = require "ffi"
local convert = require "mesh.native.convert"

local C = ffi.C

local _M = {}


-- Puts the identity into force. `identity` is the entry of the state, which keeps the strings alive during the call.
-- Returns nil; or the reason why it cannot be used, and then the identity that was in force stays.
function _M.put(identity)
    local federated = identity.federated or {}
    local trust_domains = {}

    for name in pairs(federated) do
        trust_domains[#trust_domains + 1] = name
    end

    table.sort(trust_domains)

    local strings = ffi.new("ngx_mesh_ffi_str_t[?]", 3 + 2 * #trust_domains)

    convert.set_string(strings[0], identity.svid)
    convert.set_string(strings[1], identity.key)
    convert.set_string(strings[2], identity.bundle)

    for i, name in ipairs(trust_domains) do
        convert.set_string(strings[1 + 2 * i], name)
        convert.set_string(strings[2 + 2 * i], federated[name])
    end

    local reason = C.ngx_mesh_ffi_identity(strings, strings + 1, strings + 2, strings + 3, #trust_domains)

    if reason ~= nil then
        return ffi.string(reason)
    end
end


function _M.clear()
    C.ngx_mesh_ffi_identity_clear()
end


-- When the SVID expires, in seconds since the epoch; 0 without an identity.
function _M.expires()
    return tonumber(C.ngx_mesh_ffi_identity_expires())
end


return _M
