-- The status API: it tells an operator inside the pod what this sidecar is and which state it has.

local cjson = require "cjson"
local native_breakers = require "mesh.native.breakers"
local native_identity = require "mesh.native.identity"
local state = require "mesh.state"
local values = require "mesh.values"

local _M = {}


-- The circuit breakers of the services that this sidecar calls.
local function breakers()
    local out = {}

    for service, breaker in pairs(state.breakers()) do
        out[service] = { breaker = breaker.breaker, state = values.BREAKER_STATES[native_breakers.state(service)] }
    end

    return out
end


-- Answers with the status as JSON.
function _M.show()
    local settings = state.settings()

    ngx.header["Content-Type"] = "application/json"
    ngx.say(cjson.encode {
        nginx_version = ngx.var.nginx_version,
        state_version = state.version(),
        mtls_mode = settings and settings.mtls_mode or cjson.null,
        spiffe_id = state.spiffe_id() or cjson.null,
        svid_expires = native_identity.expires(),
        circuit_breakers = breakers(),
        connections_active = tonumber(ngx.var.connections_active),
    })
end


return _M
