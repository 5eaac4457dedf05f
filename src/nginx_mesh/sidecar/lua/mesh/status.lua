-- The status API: what this sidecar is and runs, for an operator inside the pod.

local cjson = require "cjson"
local engine = require "mesh.engine"
local state = require "mesh.state"

local _M = {}


-- Of the services that this sidecar calls.
local function breakers()
    local out = {}

    for service, breaker in pairs(state.breakers()) do
        out[service] = { breaker = breaker.breaker, state = engine.BREAKER_STATES[engine.breaker_state(service)] }
    end

    return out
end


function _M.show()
    local settings = state.settings()

    ngx.header["Content-Type"] = "application/json"
    ngx.say(cjson.encode {
        nginx_version = ngx.var.nginx_version,
        state_version = state.version(),
        mtls_mode = settings and settings.mtls_mode or cjson.null,
        spiffe_id = state.spiffe_id() or cjson.null,
        svid_expires = engine.identity_expires(),
        circuit_breakers = breakers(),
        connections_active = tonumber(ngx.var.connections_active),
    })
end


return _M
