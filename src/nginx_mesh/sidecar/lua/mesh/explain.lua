-- explain.sock: answers what would become of the request that is sent there, by the tables and functions that decide
-- requests. Nothing is forwarded, counted or limited, and nothing remembered except what a first request would load.
-- The PROXY protocol preamble of the connection names who would send the request and to where
-- (module/ngx_mesh_connection.c), so that the request itself is just as it would be sent.

local cjson = require "cjson.safe"
local grpc_codes = require "mesh.grpc_codes"
local inbound = require "mesh.inbound"
local native_clusters = require "mesh.native.clusters"
local native_explain = require "mesh.native.explain"
local native_identity = require "mesh.native.identity"
local native_request = require "mesh.native.request"
local outbound = require "mesh.outbound"
local state = require "mesh.state"

local _M = {}


local function answer(status, body)
    body = cjson.encode(body)

    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.header["Content-Length"] = #body
    ngx.print(body)
end


-- The list, or nil when it is empty: cjson would write an empty list as an object.
local function list(items)
    return items[1] and items
end


local function refused(status, reason, grpc_status)
    return { status = status, grpc_status = grpc_status or grpc_codes[status], reason = reason }
end


local function endpoints_of(name, cluster)
    local found = {}

    for address, endpoint in pairs(cluster.endpoints) do
        found[#found + 1] = {
            address = address,
            tls = endpoint.tls,
            spiffe_id = endpoint.spiffe_id,
            down = native_clusters.endpoint_down(name, address),
        }
    end

    table.sort(found, function(a, b) return a.address < b.address end)

    return found
end


-- Where the request goes if the branch with this number (from 0 on) is chosen of the split, if there is one.
local function branch_of(destination, number)
    local tcp = destination.protocol == "tcp"
    local route = native_explain.route(tcp, number)
    local name = route.name ~= "" and route.name or destination.cluster
    local cluster = route.cluster ~= "" and state.cluster(route.cluster) or nil
    local status, reason = outbound.refusal(route.selected, name)

    -- A TCP connection is closed without an answer.
    route.refusal = status and (tcp and { reason = reason } or refused(status, reason))

    for _, breaker in ipairs(route.breakers) do
        local entry = state.entry("breaker/" .. breaker.service) or {}

        breaker.breaker = entry.breaker
        breaker.fallback = entry.fallback
    end

    route.breakers = list(route.breakers)

    if cluster then
        route.lb_method = cluster.lb_method
        route.endpoints = list(endpoints_of(route.cluster, cluster))
    end

    return route
end


-- All branches that a request to a destination may take: one without a split, else one for each backend of the split.
local function branches_of(destination)
    local first = branch_of(destination, 0)
    local branches, usable = { first }, first.usable

    for number = 1, first.branches - 1 do
        branches[number + 1] = branch_of(destination, number)
        usable = usable or branches[number + 1].usable
    end

    if first.branches > 0 and not usable then
        -- The request stays with the service that was dialled.
        return { branch_of(destination, first.branches) }
    end

    return branches
end


-- The answer for a request that the application sends.
local function explain_outbound(address)
    local destination = state.destination(address)

    if not destination then
        return {}
    end

    state.load(destination)

    local split = state.entry("split/" .. destination.service)

    return {
        destination = destination,
        split = split and { split = split.split, conditional = #(split.matches or {}) > 0, backends = split.backends },
        branches = list(branches_of(destination)),
    }
end


-- The TrafficTargets that grant something at a port. One TrafficTarget may have a grant for requests and one for TCP
-- connections: they follow each other.
local function targets_of(grants, peer)
    local targets = {}

    for _, grant in ipairs(grants) do
        local named = false

        for _, source in ipairs(grant.sources) do
            named = named or source == peer
        end

        if #targets == 0 or targets[#targets].target ~= grant.target then
            targets[#targets + 1] = {
                target = grant.target,
                names_caller = named,
                has_rules = grant.tcp == true or #(grant.matches or {}) > 0,
            }
        end
    end

    return list(targets)
end


-- The checks up to the first that refuses the request.
local function checks()
    local settings = state.settings()
    local passed = {}

    for i, check in ipairs(inbound.CHECKS) do
        local status, reason = check.refuses(settings)

        passed[i] = { check = check.name }

        if status then
            passed[i].refusal = refused(status, reason)
            break
        end
    end

    return passed
end


-- The limits of a request that passes all checks, and what the strictest of them does to it.
local function limits()
    local found = list(native_explain.limits())
    local wait, by = 0, nil

    for _, limit in ipairs(found or {}) do
        if not limit.admits then
            return found, { ratelimit = limit.ratelimit, refusal = refused(unpack(inbound.LIMITED)) }
        end

        if limit.wait > wait then
            wait, by = limit.wait, limit.ratelimit
        end
    end

    return found, by and { ratelimit = by, wait = wait } or nil
end


-- Whether a port carries TCP, or HTTP.
local function speaks(entry, tcp)
    for _, protocol in ipairs(entry.protocols) do
        if (protocol == "tcp") == tcp then
            return true
        end
    end

    return false
end


-- The answer for a request, or a TCP connection, that comes from the wire.
local function explain_inbound(port, tcp)
    local entry = state.entry("inbound/" .. port)
    local peer = native_request.peer()
    local about = { peer = peer or nil, protocols = entry and entry.protocols }

    if not entry then
        about.closed = "no container declares this port"
        return about
    end

    if type(entry.grants) == "table" then
        about.restricted = true
        about.targets = targets_of(entry.grants, peer)
    end

    if not speaks(entry, tcp) then
        if tcp then
            about.closed = "the port speaks HTTP, the caller's sidecar TCP"
            return about
        end

        if peer ~= nil and state.settings().mtls_mode ~= "strict" then
            about.closed = "the port speaks TCP, where TLS is the application's own unless the mode is strict"
            return about
        end

        tcp = true                                      -- a TCP port takes any bytes
    end

    if tcp then
        about.closed, about.granted = native_explain.tcp()
        return about
    end

    about.checks = checks()

    if not about.checks[#about.checks].refusal then
        about.granted = native_request.granted()
        about.limits, about.limited = limits()
    end

    return about
end


-- Answers the request with what would become of it, as JSON.
function _M.content()
    local direction, protocol = ngx.var["proxy_protocol_tlv_0xE0"], ngx.var["proxy_protocol_tlv_0xE1"]

    if not native_explain.begin() then
        return answer(400, { error = "the preamble names no address" })
    end

    if direction ~= "outbound" and direction ~= "inbound" then
        return answer(400, { error = "the direction (0xE0) is neither outbound nor inbound" })
    end

    if protocol ~= "http" and protocol ~= "tcp" then
        return answer(400, { error = "the protocol (0xE1) is neither http nor tcp" })
    end

    local settings = state.settings()
    local address, port = native_request.original()
    local about = {}

    if settings then
        about = direction == "outbound" and explain_outbound(address) or explain_inbound(port, protocol == "tcp")
    end

    about.version = state.version()
    about.mtls_mode = settings and settings.mtls_mode
    about.spiffe_id = state.spiffe_id()
    about.svid_expires = native_identity.expires()

    answer(200, about)
end


return _M
