-- Requests of the application that the module's tables alone do not route: to clusters that are not loaded yet, and to
-- nowhere. The module chooses the endpoint.

local deny = require "mesh.deny"
local engine = require "mesh.engine"
local state = require "mesh.state"

local _M = {}


function _M.access()
    local address = engine.original()
    local destination = address and state.destination(address)

    if not destination or destination.protocol == "tcp" then
        return deny(503, "no service has this address")
    end

    local name = destination.cluster
    local selected = engine.select(name)

    if selected == "unknown" and state.cluster(name) then
        selected = engine.select(name)
    end

    if selected ~= "ok" then
        return deny(503, "no endpoint of " .. name .. " may be called")
    end
end


return _M
