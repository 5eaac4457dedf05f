-- Requests from the wire: who calls, whether they may, how often. The module lets pass what its tables alone admit.

local deny = require "mesh.deny"
local engine = require "mesh.engine"
local metrics = require "mesh.metrics"
local state = require "mesh.state"

local _M = {}


local function lacks_state(settings)
    if not settings then
        return 503, "the sidecar has no state yet"
    end
end


local function lacks_identity()
    if engine.peer() == false then
        return 400, "the client's certificate does not prove a SPIFFE ID of the mesh"
    end
end


local function lacks_mtls(settings)
    if engine.peer() == nil and settings.mtls_mode == "strict" then
        return 400, "plaintext request to a pod with strict mTLS"
    end
end


local function lacks_port()
    engine.disown_identity()

    local _, port = engine.original()

    if not port or not state.inbound(port) then
        return 503, "no container declares this port"
    end
end


local function lacks_right()
    if not engine.allowed() then
        return 403, "access denied"
    end
end


local function is_too_long(settings)
    local limit = settings.client_max_body_size

    if limit > 0 and not engine.limit_body(limit) then
        return 413, "the body is larger than " .. limit .. " bytes"
    end
end


-- What a request has to pass before its rate limits, in this order: each gives nothing, or the HTTP status and the
-- reason of its refusal.
_M.CHECKS = {
    { name = "state", refuses = lacks_state },
    { name = "identity", refuses = lacks_identity },
    { name = "mode", refuses = lacks_mtls },
    { name = "port", refuses = lacks_port },
    { name = "access", refuses = lacks_right },
    { name = "body", refuses = is_too_long },
}

-- What a request over a rate limit gets: HTTP status, reason, gRPC status code (RESOURCE_EXHAUSTED).
_M.LIMITED = { 503, "rate limit exceeded", 8 }


-- Ends the request if it may not pass.
local function judge()
    local settings = state.settings()

    for _, check in ipairs(_M.CHECKS) do
        local status, reason = check.refuses(settings)

        if status then
            if check.name == "access" then
                metrics.denied()
            end

            return deny(status, reason)
        end
    end
end


function _M.access()
    judge()

    local wait, ratelimit = engine.limit()

    if not wait then
        metrics.rate("limited", ratelimit)
        return deny(unpack(_M.LIMITED))
    end

    if wait > 0 then
        metrics.rate("delayed", ratelimit)
        ngx.sleep((wait + 0.5) / 1000)                  -- which is cut to whole milliseconds
        judge()                                         -- what it may do can have changed meanwhile
    end
end


return _M
