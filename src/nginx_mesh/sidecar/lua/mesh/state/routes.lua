-- What this worker has loaded in order to route: clusters, and the splits and breakers of services, decoded and put
-- into the C module's tables. With a cluster come its service's split and breaker, and the clusters that these name, so
-- that the module can decide alone.

local cjson = require "cjson"
local endpoint = require "mesh.state.endpoint"
local native_breakers = require "mesh.native.breakers"
local native_clusters = require "mesh.native.clusters"
local native_splits = require "mesh.native.splits"
local store = require "mesh.state.store"

local pairs, ipairs = pairs, ipairs

local _M = {}

local clusters = {}                                     -- name -> entry
local breakers = {}                                     -- service -> entry
local eager = {}                                        -- names of clusters to be loaded as soon as the state has them
local used = {}                                         -- services whose split and breaker are in the module's tables
local before_change = function() end
local metric_labels = function() return "" end
local batch = false                                     -- whether handlers have heard of the changes at hand
local load_cluster


local function announce_change()
    if not batch then
        before_change()
    end
end


-- Loads a cluster that a split or a breaker names, and keeps it loaded.
local function keep(name)
    eager[name] = true

    if not clusters[name] then
        load_cluster(name)
    end
end


local function load_split(service)
    local raw = store.get("split/" .. service)

    if not raw then
        native_splits.delete(service)
        return
    end

    local split = cjson.decode(raw)

    for _, backend in ipairs(split.backends) do
        keep(backend.cluster)
    end

    native_splits.put(service, split)
end


local function load_breaker(service)
    local raw = store.get("breaker/" .. service)

    if breakers[service] then
        announce_change()
        breakers[service] = nil
    end

    if not raw then
        native_breakers.delete(service)
        return
    end

    local new = cjson.decode(raw)

    if new.fallback and new.fallback ~= "" then
        keep(new.fallback)
    end

    native_breakers.put(service, new)
    breakers[service] = new
end


-- Loads the split and the breaker of a service, unless they are loaded.
function _M.use(service)
    if not used[service] then
        used[service] = true
        load_split(service)
        load_breaker(service)
    end
end


function load_cluster(name)
    local raw = store.get("cluster/" .. name)
    local old = clusters[name]

    if old then
        announce_change()
    end

    local new = raw and cjson.decode(raw) or nil

    for address, e in pairs(old and old.endpoints or {}) do
        local successor = new and new.endpoints[address]

        if not successor or not endpoint.is_same(e, successor) then
            native_clusters.delete_endpoint(name, address, metric_labels(name, address, e))
        end
    end

    if not new then
        clusters[name] = nil
        native_clusters.delete_cluster(name)
        return nil
    end

    native_clusters.put_cluster(name, new.lb_method)

    for address, e in pairs(new.endpoints) do
        native_clusters.put_endpoint(name, address, e)
    end

    clusters[name] = new
    _M.use(name)

    return new
end


-- Loads all that calling a destination needs. Returns its cluster; nil when the state lacks it.
function _M.load(destination)
    _M.use(destination.service)

    return clusters[destination.cluster] or load_cluster(destination.cluster)
end


-- Takes note of a destination that is new or has changed. Clusters that TCP uses are loaded at once, as no Lua runs for
-- a TCP connection.
function _M.destination_changed(destination)
    local tcp = destination.protocol == "tcp"

    if tcp then
        eager[destination.cluster] = true
    end

    if tcp or clusters[destination.cluster] then
        _M.load(destination)
    end
end


function _M.cluster_changed(name)
    if clusters[name] or eager[name] then
        load_cluster(name)
    end
end


function _M.split_changed(service)
    if used[service] then
        load_split(service)
    end
end


function _M.breaker_changed(service)
    if used[service] then
        load_breaker(service)
    end
end


-- `handler` is called while a cluster or a breaker that this worker uses is still what it was. `labels(cluster,
-- address, endpoint)` gives the labels of the metrics of an endpoint that is deleted.
function _M.on_change(handler, labels)
    before_change = handler
    metric_labels = labels
end


-- Announces that changes follow, once for all changes until end_batch().
function _M.begin_batch()
    announce_change()
    batch = true
end


function _M.end_batch()
    batch = false
end


-- The cluster with this name, if it is loaded.
function _M.cluster(name)
    return clusters[name]
end


-- The breakers that are loaded, by service.
function _M.breakers()
    return breakers
end


return _M
