-- Adds what the C module counted in this worker to the counters in shared memory.

local histograms = require "mesh.metrics.histograms"
local labels = require "mesh.metrics.labels"
local native_breakers = require "mesh.native.breakers"
local native_counts = require "mesh.native.counts"
local native_reports = require "mesh.native.reports"
local series = require "mesh.series"
local state = require "mesh.state"

local pairs = pairs

local _M = {}

-- Groups of endpoints, each made once: cluster (as the state has it) -> kind -> address -> group.
local endpoint_groups = setmetatable({}, { __mode = "k" })


-- The group of an endpoint that the state has.
function _M.endpoint_group(kind, name, cluster, address)
    local known = endpoint_groups[cluster] or { http = {}, tcp = {} }
    endpoint_groups[cluster] = known

    if not known[kind][address] then
        local own = labels.of_endpoint(name, address, cluster.endpoints[address])
        known[kind][address] = series.group(kind, name, address, own)
    end

    return known[kind][address]
end


local function group_of(kind, counts)
    local name, address = counts.cluster, counts.endpoint
    local cluster = not counts.labels and state.cluster(name)

    if cluster then
        return _M.endpoint_group(kind, name, cluster, address)
    end

    return series.group(kind, name, address, counts.labels or labels.of_endpoint(name, address))
end


local function add_http(counts)
    local counters, requests = counts.http, 0

    for status, histogram in pairs(counts.statuses) do
        requests = requests + histograms.put(counters, status, histogram)
    end

    counters.mtls = counts.tls and requests or 0

    for _, n in pairs(counters) do
        if n > 0 then
            series.add(group_of("http", counts), counters)
            return
        end
    end
end


local function add_tcp(counts)
    local counters = counts.tcp

    counters.mtls = counts.tls and counters.connections or 0

    for name, histogram in pairs(counts.times) do
        histograms.put(counters, name, histogram)
    end

    series.add(group_of("tcp", counts), counters)
end


local function collect_totals()
    local totals, latency = native_counts.take_totals()

    histograms.put(totals, "latency", latency)
    totals.reports_dropped = native_reports.take_dropped()

    for name, n in pairs(totals) do
        series.add_total(name, n)
    end
end


-- Takes everything that was counted since the last call.
function _M.collect()
    collect_totals()

    for service, breaker in pairs(state.breakers()) do
        local group = series.group("breaker", service, breaker.breaker, labels.of_breaker(service, breaker))
        series.add(group, { trips = native_breakers.take_trips(service) })
    end

    while true do
        local counts = native_counts.take_endpoint()

        if not counts then
            break
        end

        add_http(counts)

        if counts.tcp then
            add_tcp(counts)
        end
    end
end


return _M
