-- Puts circuit breakers into the C module, and asks how they are.

local ffi = require "ffi"
local convert = require "mesh.native.convert"

local C = ffi.C

local _M = {}


-- `breaker` is the entry of the state.
function _M.put(service, breaker)
    local fallback = breaker.fallback or ""

    convert.check(C.ngx_mesh_ffi_breaker_put(service, #service, breaker.errors, breaker.timeout_ms,
                                             fallback, #fallback))
end


function _M.delete(service)
    C.ngx_mesh_ffi_breaker_delete(service, #service)
end


-- The state of the breaker of a service in use, as a key of values.BREAKER_STATES.
function _M.state(service)
    return tonumber(C.ngx_mesh_ffi_breaker_state(service, #service))
end


-- The number of times that the breaker opened since the last call.
function _M.take_trips(service)
    return tonumber(C.ngx_mesh_ffi_breaker_trips_take(service, #service))
end


return _M
