-- Metrics in Prometheus' text format. The C module counts in each worker; what it counted is added to shared memory
-- every second and on exit, and exposed when somebody asks.

local collector = require "mesh.metrics.collector"
local counter_names = require "mesh.counter_names"
local exposition = require "mesh.metrics.exposition"
local groups = require "mesh.metrics.groups"
local histograms = require "mesh.metrics.histograms"
local labels = require "mesh.metrics.labels"
local native_counts = require "mesh.native.counts"
local series = require "mesh.series"
local sidecar = require "mesh.metrics.sidecar"
local state = require "mesh.state"
local writer = require "mesh.metrics.writer"

local ipairs = ipairs

local COLLECT_INTERVAL = 1                              -- seconds
local BOUNDS = native_counts.LATENCY_BOUNDS

local _M = {
    SWEEP_INTERVAL = 60,                                -- seconds
}


local function sweep(premature)
    if premature then
        return
    end

    local ratelimits, clusters = state.ratelimits(), {}

    -- Whether the state still has what a group counts.
    series.sweep(function(group, kind, subject, member)
        if kind == "ratelimit" then
            return ratelimits[subject]
        end

        if kind == "breaker" then
            local breaker = state.entry("breaker/" .. subject)
            return breaker and breaker.breaker == member
        end

        -- A cluster that this worker does not use is decoded once for all of its endpoints.
        local cluster = clusters[subject] or state.cluster(subject)
        clusters[subject] = cluster

        return cluster and cluster.endpoints[member]
            and collector.endpoint_group(kind, subject, cluster, member) == group
    end)
end


local function totals()
    local names = histograms.names("latency", #BOUNDS + 1)

    for _, list in ipairs { { "requests_denied", "dropped", "reports_dropped" }, counter_names.TOTALS } do
        for _, name in ipairs(list) do
            names[#names + 1] = name
        end
    end

    return names
end


-- In each worker's start.
function _M.start()
    series.start(totals())
    state.on_change(collector.collect, labels.of_endpoint)
    assert(ngx.timer.every(COLLECT_INTERVAL, collector.collect))

    if ngx.worker.id() == 0 then
        assert(ngx.timer.every(_M.SWEEP_INTERVAL, sweep))
    end
end


-- Counts a request that access control refused.
function _M.count_denied()
    series.add_total("requests_denied", 1)
end


-- Counts a request that a RateLimit refused (`what` is "limited") or let wait ("delayed").
function _M.count_rate(what, ratelimit)
    local group = series.group("ratelimit", ratelimit, "", labels.format { ratelimit = ratelimit })
    series.add(group, { [what] = 1 })
end


-- Sends some lines, and lets requests have their turn.
local function send(fragments)
    ngx.print(fragments)
    ngx.flush(true)
    ngx.sleep(0)
end


-- Answers the request with the exposition.
function _M.expose()
    collector.collect()

    local settings = state.settings()
    -- Before there is a state, the pod has a label that is empty: to Prometheus it is not there.
    local pod = settings and next(settings.labels) and labels.format(settings.labels) or 'pod=""'
    local values, latency = sidecar.values(), sidecar.received_latency()
    local prepared = series.groups(groups.prepare)

    ngx.header["Content-Type"] = "text/plain; version=0.0.4"
    exposition.write(writer.new(pod, BOUNDS, send), prepared, values, latency)
end


return _M
