-- explain.sock: what would become of the request that is sent there, by the tables and functions that decide requests.
-- Nothing is forwarded, counted, limited or remembered but what a first request would load. Who would send it and to
-- where is said by the connection's preamble (module/ngx_mesh_connection.c), so that the request can be just as it is.

local cjson = require "cjson.safe"
local engine = require "mesh.engine"
local grpc_codes = require "mesh.grpc_codes"
local inbound = require "mesh.inbound"
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


-- An empty list is left out: cjson writes it as an object.
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
            down = engine.endpoint_down(name, address),
        }
    end

    table.sort(found, function(a, b) return a.address < b.address end)

    return found
end


-- Where a request goes of which branch number `number` of a split is chosen, as far as it is one.
local function branch_of(destination, number)
    local tcp = destination.protocol == "tcp"
    local route = engine.explain_route(tcp, number)
    local name = route.name ~= "" and route.name or destination.cluster
    local cluster = route.cluster ~= "" and state.peek(route.cluster) or nil
    local status, reason = outbound.refusal(route.selected, name)

    -- a TCP connection is closed without words
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


-- All ways that a request to a destination may go: one without a split, one for each share of one.
local function ways(destination)
    local first = branch_of(destination, 0)
    local branches, usable = { first }, first.usable

    for number = 1, first.branches - 1 do
        branches[number + 1] = branch_of(destination, number)
        usable = usable or branches[number + 1].usable
    end

    if first.branches > 0 and not usable then
        -- then it stays with the root
        return { branch_of(destination, first.branches) }
    end

    return branches
end


local function going_out(address)
    local destination = state.destination(address)

    if not destination then
        return {}
    end

    state.load(destination)

    local split = state.entry("split/" .. destination.service)

    return {
        destination = destination,
        split = split and { split = split.split, conditional = #(split.matches or {}) > 0, backends = split.backends },
        branches = list(ways(destination)),
    }
end


-- The TrafficTargets that grant something at a port. One may grant requests and connections apart.
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


-- The limits of a request that passes all checks; what the strictest says of it.
local function limits()
    local found = list(engine.explain_limits())
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


local function speaks(entry, tcp)
    for _, protocol in ipairs(entry.protocols) do
        if (protocol == "tcp") == tcp then
            return true
        end
    end

    return false
end


local function coming_in(port, tcp)
    local entry = state.entry("inbound/" .. port)
    local peer = engine.peer()
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

        tcp = true                                      -- which takes anything
    end

    if tcp then
        about.closed, about.granted = engine.explain_tcp()
        return about
    end

    about.checks = checks()

    if not about.checks[#about.checks].refusal then
        about.granted = engine.granted()
        about.limits, about.limited = limits()
    end

    return about
end


function _M.content()
    local direction, protocol = ngx.var["proxy_protocol_tlv_0xE0"], ngx.var["proxy_protocol_tlv_0xE1"]

    if not engine.explain() then
        return answer(400, { error = "the preamble names no address" })
    end

    if direction ~= "outbound" and direction ~= "inbound" then
        return answer(400, { error = "the direction (0xE0) is neither outbound nor inbound" })
    end

    if protocol ~= "http" and protocol ~= "tcp" then
        return answer(400, { error = "the protocol (0xE1) is neither http nor tcp" })
    end

    local settings = state.settings()
    local address, port = engine.original()
    local about = {}

    if settings then
        about = direction == "outbound" and going_out(address) or coming_in(port, protocol == "tcp")
    end

    about.version = state.version()
    about.mtls_mode = settings and settings.mtls_mode
    about.spiffe_id = state.spiffe_id()
    about.svid_expires = engine.identity_expires()

    answer(200, about)
end


return _M
