-- Asks the C module what would become of the request at hand, which is only asked about.

local ffi = require "ffi"
local base = require "resty.core.base"
local convert = require "mesh.native.convert"
local request = require "mesh.native.request"
local values = require "mesh.values"

local C = ffi.C
local get_request = base.get_request
local to_string = convert.to_string

local UINT64_MAX = 0xffffffffffffffffULL                -- the `delay` of a limit with nodelay

local _M = {}


-- Turns the request at hand into one that is only asked about. Returns whether its connection says what is asked.
function _M.begin()
    return C.ngx_http_mesh_ffi_explain(get_request()) == convert.OK
end


-- Where the request would go if the branch with this number (from 0 on) of a split were chosen: the result of
-- request.select(), and the breakers that it would pass.
function _M.route(tcp, branch)
    local dry = ffi.new("ngx_mesh_dry_t", { branch = branch })
    local rc = tonumber(C.ngx_http_mesh_ffi_explain_route(get_request(), tcp and 1 or 0, dry))
    local breakers = {}

    for i = 0, tonumber(dry.nbreakers) - 1 do
        local breaker = dry.breakers[i]

        breakers[i + 1] = {
            service = to_string(breaker.service),
            state = values.BREAKER_STATES[tonumber(breaker.state)],
            wait = tonumber(breaker.wait),
        }
    end

    return {
        selected = request.SELECTED[rc],
        name = to_string(dry.name),
        cluster = to_string(dry.cluster),
        branches = tonumber(dry.branches),
        weight = dry.weight,
        usable = dry.usable ~= 0,
        breakers = breakers,
    }
end


-- Why a TCP connection from the wire would be closed; or nil and, if a grant is needed, the name of the one that allows
-- it.
function _M.tcp()
    local by = ffi.new "ngx_mesh_ffi_str_t"
    local reason = C.ngx_http_mesh_ffi_explain_tcp(get_request(), by)

    if reason ~= nil then
        return ffi.string(reason)
    end

    return nil, by.len > 0 and to_string(by) or nil
end


-- The limits that would count the request, in order. Numbers of requests are in thousandths (a `delay` of -1 means
-- nodelay), waits are milliseconds.
function _M.limits()
    local r = get_request()
    local n = C.ngx_http_mesh_ffi_explain_limits(r, nil, 0)
    local found = ffi.new("ngx_mesh_dry_limit_t[?]", n)
    local limits = {}

    C.ngx_http_mesh_ffi_explain_limits(r, found, n)

    for i = 0, tonumber(n) - 1 do
        local limit = found[i]

        limits[i + 1] = {
            name = to_string(limit.name),
            ratelimit = to_string(limit.policy),
            rate = tonumber(limit.rate),
            burst = tonumber(limit.burst),
            delay = limit.delay == UINT64_MAX and -1 or tonumber(limit.delay),
            excess = tonumber(limit.excess),
            wait = tonumber(limit.wait),
            admits = limit.admits ~= 0,
        }
    end

    return limits
end


return _M
