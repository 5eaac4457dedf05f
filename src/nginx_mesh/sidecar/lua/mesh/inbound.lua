-- Requests from the wire: who calls, whether they may, how often.

local access = require "mesh.access"
local deny = require "mesh.deny"
local engine = require "mesh.engine"
local limit = require "mesh.limit"
local metrics = require "mesh.metrics"
local state = require "mesh.state"

local _M = {}


function _M.access()
    local settings = state.settings()
    if not settings then
        return deny(503, "the sidecar has no state yet")
    end

    local peer = engine.peer()

    if peer == false then
        return deny(400, "the client's certificate does not prove a SPIFFE ID of the mesh")
    end

    if peer == nil and settings.mtls_mode == "strict" then
        return deny(400, "plaintext request to a pod with strict mTLS")
    end

    engine.disown_identity()

    local _, port = engine.original()
    local inbound = port and state.inbound(port)

    if not inbound then
        return deny(503, "no container declares this port")
    end

    if not access.allowed(inbound.grants, peer) then
        metrics.denied()
        return deny(403, "access denied")
    end

    local body_size = settings.client_max_body_size

    if body_size > 0 and not engine.limit_body(body_size) then
        return deny(413, "the body is larger than " .. body_size .. " bytes")
    end

    local limits = inbound.limits

    if limits and #limits > 0 then
        local wait = limit.delay(limits, peer)

        if not wait then
            return deny(503, "rate limit exceeded", 8)  -- RESOURCE_EXHAUSTED
        end

        if wait > 0 then
            ngx.sleep(wait)
        end
    end
end


_M.log = metrics.inbound


return _M
