-- Requests from the wire: who calls, whether the caller may, and how often. The C module decides about most of them by
-- its tables alone, and asks here about the others.

local deny = require "mesh.deny"
local metrics = require "mesh.metrics"
local native_request = require "mesh.native.request"
local state = require "mesh.state"

local _M = {}


local function lacks_state(settings)
    if not settings then
        return 503, "the sidecar has no state yet"
    end
end


local function lacks_identity()
    if native_request.peer() == false then
        return 400, "the client's certificate does not prove a SPIFFE ID of the mesh"
    end
end


local function lacks_mtls(settings)
    if native_request.peer() == nil and settings.mtls_mode == "strict" then
        return 400, "plaintext request to a pod with strict mTLS"
    end
end


local function lacks_port()
    native_request.disown_identity()

    local _, port = native_request.original()

    if not port or not state.inbound(port) then
        return 503, "no container declares this port"
    end
end


local function lacks_right()
    if not native_request.allowed() then
        return 403, "access denied"
    end
end


local function is_too_long(settings)
    local limit = settings.client_max_body_size

    if limit > 0 and not native_request.limit_body(limit) then
        return 413, "the body is larger than " .. limit .. " bytes"
    end
end


-- The checks that a request has to pass before its rate limits, in this order. `refuses(settings)` returns nothing, or
-- the HTTP status and the reason of the refusal.
_M.CHECKS = {
    { name = "state", refuses = lacks_state },
    { name = "identity", refuses = lacks_identity },
    { name = "mode", refuses = lacks_mtls },
    { name = "port", refuses = lacks_port },
    { name = "access", refuses = lacks_right },
    { name = "body", refuses = is_too_long },
}

-- The answer to a request over a rate limit: HTTP status, reason, gRPC status code (RESOURCE_EXHAUSTED).
_M.LIMITED = { 503, "rate limit exceeded", 8 }


-- Ends the request if it may not pass.
local function apply_checks()
    local settings = state.settings()

    for _, check in ipairs(_M.CHECKS) do
        local status, reason = check.refuses(settings)

        if status then
            if check.name == "access" then
                metrics.count_denied()
            end

            return deny(status, reason)
        end
    end
end


-- In the access phase: ends the request if it may not pass, and makes it wait where a rate limit delays it.
function _M.access()
    apply_checks()

    local wait, ratelimit = native_request.limit()

    if not wait then
        metrics.count_rate("limited", ratelimit)
        return deny(unpack(_M.LIMITED))
    end

    if wait > 0 then
        metrics.count_rate("delayed", ratelimit)
        -- ngx.sleep() cuts the time to whole milliseconds: half a millisecond more keeps it from being one too short.
        ngx.sleep((wait + 0.5) / 1000)
        -- The state may have changed while the request waited.
        apply_checks()
    end
end


return _M
