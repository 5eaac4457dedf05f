-- Puts entries of the state into this worker: into the C module's tables, or into Lua's own, which decode an entry when
-- it is first asked for.

local bit = require "bit"
local cjson = require "cjson"
local native_clusters = require "mesh.native.clusters"
local native_identity = require "mesh.native.identity"
local native_inbound = require "mesh.native.inbound"
local native_reports = require "mesh.native.reports"
local native_settings = require "mesh.native.settings"
local ratelimit = require "mesh.ratelimit"
local routes = require "mesh.state.routes"
local schema = require "mesh.schema"
local store = require "mesh.state.store"
local values = require "mesh.values"

local pairs, ipairs = pairs, ipairs

local _M = {}

local settings
local spiffe_id
local limits = {}                                       -- port -> list of limits
local declared = {}                                     -- port -> true
local destinations = {}                                 -- address -> entry, of those that were asked for
local probes = {}                                       -- path -> entry, of those that were asked for


local function decode_destination(raw)
    local destination = cjson.decode(raw)

    if not destination.service or destination.service == "" then
        destination.service = destination.cluster
    end

    return destination
end


-- What to do with an entry of each kind. `raw` is nil when the state no longer has it.
local LOAD = {
    settings = function(_, raw)
        settings = raw and cjson.decode(raw)

        if settings then
            native_settings.put(settings)
            native_reports.sample(tonumber(settings.sampler_ratio))
        end
    end,

    identity = function(_, raw)
        if not raw then
            native_identity.clear()
            spiffe_id = nil
            return
        end

        local identity = cjson.decode(raw)
        local reason = native_identity.put(identity)

        if reason then
            error("identity: " .. reason)
        end

        spiffe_id = identity.spiffe_id
    end,

    inbound = function(name, raw)
        local port = tonumber(name)
        local new = raw and cjson.decode(raw) or nil
        local bits = 0

        for _, protocol in ipairs(new and new.protocols or {}) do
            bits = bit.bor(bits, values.PROTOCOL_BITS[protocol])
        end

        -- `grants` may be null
        native_inbound.put(port, bits, new and type(new.grants) == "table" and new.grants or nil,
                           new and new.limits or {})
        declared[port] = new ~= nil
        limits[port] = new and new.limits
    end,

    destination = function(address, raw)
        destinations[address] = nil

        if not raw then
            native_clusters.delete_destination(address)
            return
        end

        local destination = decode_destination(raw)

        native_clusters.put_destination(address, destination)
        routes.destination_changed(destination)
    end,

    cluster = routes.cluster_changed,
    split = routes.split_changed,
    breaker = routes.breaker_changed,

    probe = function(path)
        probes[path] = nil
    end,
}


-- Loads an entry that is new, has changed, or is no longer there.
function _M.load(key)
    local kind, name = schema.split_key(key)
    LOAD[kind](name, store.get(key))
end


function _M.load_all()
    for _, key in ipairs(store.keys()) do
        _M.load(key)
    end
end


-- The settings; nil before there is a state.
function _M.settings()
    return settings
end


-- The SPIFFE ID of the pod; nil without an identity.
function _M.spiffe_id()
    return spiffe_id
end


-- Whether a container declares the port.
function _M.inbound(port)
    return declared[port]
end


-- The destination at an address, with its service filled in; nil when the state has none.
function _M.destination(address)
    local destination = destinations[address]

    if not destination then
        local raw = store.get("destination/" .. address)

        if raw then
            destination = decode_destination(raw)
            destinations[address] = destination
        end
    end

    return destination
end


-- The health check behind a path; nil when the state has none.
function _M.probe(path)
    local probe = probes[path]

    if not probe then
        local raw = store.get("probe/" .. path)

        if raw then
            probe = cjson.decode(raw)
            probes[path] = probe
        end
    end

    return probe
end


-- The names of the RateLimits in force, as keys.
function _M.ratelimits()
    local names = {}

    for _, list in pairs(limits) do
        for _, limit in ipairs(list) do
            names[ratelimit.name_of(limit.name)] = true
        end
    end

    return names
end


return _M
