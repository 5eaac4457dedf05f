-- Requests of the application that the C module's tables alone do not route: those to clusters that are not loaded yet,
-- and those that go nowhere. The module chooses the endpoint.

local deny = require "mesh.deny"
local native_request = require "mesh.native.request"
local state = require "mesh.state"

local _M = {}


-- The HTTP status and the reason of the refusal when request.select() found nowhere to send a request; nothing when it
-- goes somewhere.
function _M.refusal(selected, name)
    if selected == "open" then
        return 503, "the circuit of " .. name .. " is open and there is no fallback to call"
    end

    if selected ~= "ok" then
        return 503, "no endpoint of " .. name .. " may be called"
    end
end


-- In the access phase: ends the request if it goes nowhere.
function _M.access()
    local address = native_request.original()
    local destination = address and state.destination(address)

    if not destination or destination.protocol == "tcp" then
        return deny(503, "no service has this address")
    end

    local selected, name = native_request.select()

    if selected == "unknown" and state.load(destination) then
        selected, name = native_request.select()
    end

    local status, reason = _M.refusal(selected, name or destination.cluster)

    if status then
        return deny(status, reason)
    end
end


return _M
