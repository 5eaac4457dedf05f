-- Requests from the wire: who calls, whether they may, how often. The module lets pass what its tables alone admit.

local deny = require "mesh.deny"
local engine = require "mesh.engine"
local metrics = require "mesh.metrics"
local state = require "mesh.state"

local _M = {}


-- Ends the request if it may not pass.
local function judge()
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

    if not port or not state.inbound(port) then
        return deny(503, "no container declares this port")
    end

    if not engine.allowed() then
        metrics.denied()
        return deny(403, "access denied")
    end

    local body_size = settings.client_max_body_size

    if body_size > 0 and not engine.limit_body(body_size) then
        return deny(413, "the body is larger than " .. body_size .. " bytes")
    end
end


function _M.access()
    judge()

    local wait, ratelimit = engine.limit()

    if not wait then
        metrics.rate("limited", ratelimit)
        return deny(503, "rate limit exceeded", 8)      -- RESOURCE_EXHAUSTED
    end

    if wait > 0 then
        metrics.rate("delayed", ratelimit)
        ngx.sleep((wait + 0.5) / 1000)                  -- which is cut to whole milliseconds
        judge()                                         -- what it may do can have changed meanwhile
    end
end


return _M
