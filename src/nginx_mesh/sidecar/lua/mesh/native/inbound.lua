-- Puts the pod's container ports into the C module: what each speaks, who may do what there, and how often.

local ffi = require "ffi"
local convert = require "mesh.native.convert"
local ratelimit = require "mesh.ratelimit"
local rules = require "mesh.native.rules"

local C = ffi.C
local check = convert.check

local _M = {}


local function add_grant(policy, grant)
    local tcp = grant.tcp and 1 or 0
    rules.fill(C.ngx_mesh_ffi_policy_grant(policy, grant.target, #grant.target, tcp), grant.matches)

    for _, id in ipairs(grant.sources) do
        check(C.ngx_mesh_ffi_policy_grant_source(policy, id, #id))
    end
end


local function add_limit(policy, limit)
    local name = ratelimit.name_of(limit.name)
    local added = convert.allocated(C.ngx_mesh_ffi_policy_limit(policy, limit.name, #limit.name, #name, limit.rate,
                                                                limit.burst or 0, limit.delay or 0))

    for _, address in ipairs(limit.addresses or {}) do
        check(C.ngx_mesh_ffi_limit_address(added, address, #address))
    end

    rules.fill(C.ngx_mesh_ffi_limit_rule(added), limit.matches)

    local sources = limit.sources or {}

    for _, id in ipairs(sources) do
        check(C.ngx_mesh_ffi_policy_limit_source(policy, added, id, #id))
    end

    if #sources == 0 then
        check(C.ngx_mesh_ffi_policy_limit_others(policy, added))
    end
end


local function new_policy(grants, limits)
    local policy = convert.allocated(C.ngx_mesh_ffi_policy_new(grants and 1 or 0))

    for _, grant in ipairs(grants or {}) do
        add_grant(policy, grant)
    end

    for _, limit in ipairs(limits) do
        add_limit(policy, limit)
    end

    return policy
end


-- `protocols` are bits of values.PROTOCOL_BITS; 0 means that no container declares the port. `grants` is a list, or nil
-- when every caller may do everything. `limits` is a list.
function _M.put(port, protocols, grants, limits)
    local policy

    if grants or #limits > 0 then
        policy = new_policy(grants, limits)
    end

    C.ngx_mesh_ffi_inbound(port, protocols, policy)
end


return _M
