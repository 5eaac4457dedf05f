-- Requests of the application that the module's tables alone do not route: to clusters that are not loaded yet, and to
-- nowhere. The module chooses the endpoint.

local deny = require "mesh.deny"
local engine = require "mesh.engine"
local state = require "mesh.state"

local _M = {}


-- The HTTP status and the reason of what engine.select() found nowhere to send; nothing for what goes somewhere.
function _M.refusal(selected, name)
    if selected == "open" then
        return 503, "the circuit of " .. name .. " is open and there is no fallback to call"
    end

    if selected ~= "ok" then
        return 503, "no endpoint of " .. name .. " may be called"
    end
end


function _M.access()
    local address = engine.original()
    local destination = address and state.destination(address)

    if not destination or destination.protocol == "tcp" then
        return deny(503, "no service has this address")
    end

    local selected, name = engine.select()

    if selected == "unknown" and state.load(destination) then
        selected, name = engine.select()
    end

    local status, reason = _M.refusal(selected, name or destination.cluster)

    if status then
        return deny(status, reason)
    end
end


return _M
