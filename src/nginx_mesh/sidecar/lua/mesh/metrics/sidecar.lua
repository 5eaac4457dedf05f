-- The metrics of the sidecar itself, as they are now.

local counter_names = require "mesh.counter_names"
local histograms = require "mesh.metrics.histograms"
local labels = require "mesh.metrics.labels"
local native_breakers = require "mesh.native.breakers"
local native_counts = require "mesh.native.counts"
local native_identity = require "mesh.native.identity"
local series = require "mesh.series"
local state = require "mesh.state"

local pairs, ipairs = pairs, ipairs

local STARTED = ngx.time()                              -- loaded by the master, whose memory the counters are in

local _M = {}


-- Bytes: the memory of all workers, and how much of it they do not share.
local function memory()
    local rss, private = 0, 0

    for _, pid in ipairs(ngx.worker.pids()) do
        local file = io.open("/proc/" .. pid .. "/statm")

        if file then
            local resident, shared = file:read("*a"):match("^%d+ (%d+) (%d+)")
            file:close()
            rss = rss + resident * native_counts.PAGE_SIZE
            private = private + (resident - shared) * native_counts.PAGE_SIZE
        end
    end

    return rss, private
end


local function add_connections(add)
    local accepted, handled = native_counts.connections()

    add("nginxplus_connections_accepted", accepted)
    add("nginxplus_connections_handled", handled)
    add("nginxplus_connections_dropped", accepted - handled)
    add("nginxplus_connections_active", ngx.var.connections_active)
    add("nginxplus_connections_reading", ngx.var.connections_reading)
    add("nginxplus_connections_writing", ngx.var.connections_writing)
    add("nginxplus_connections_waiting", ngx.var.connections_waiting)
    add("nginxplus_connections_idle", ngx.var.connections_waiting)
end


local function add_received(add)
    local requests = 0

    for _, side in ipairs { "client", "server" } do
        for _, result in ipairs { "ok", "failed" } do
            add("nginxplus_tls_handshakes_total", series.total(side .. "_" .. result),
                labels.with("side", side) .. labels.with("result", result))
        end
    end

    for class = 1, 5 do
        local n = series.total(class .. "xx")

        requests = requests + n
        add("nginxplus_http_responses_total", n, labels.with("code", class .. "xx"))
    end

    add("nginxplus_http_requests_total", requests)

    for _, name in ipairs(counter_names.TOTALS) do
        local status = name:match("^session_(%d+)$")

        if status then
            add("nginxplus_stream_connections_total", series.total(name), labels.with("status", status))
        end
    end
end


-- The values of the sidecar's families: name -> list of pairs of labels and value.
function _M.values()
    local found = {}

    local function add(family, value, own)
        found[family] = found[family] or {}
        table.insert(found[family], { own or "", tonumber(value) })
    end

    local rss, private = memory()
    local expires = native_identity.expires()

    add("process_start_time_seconds", STARTED)
    add("nginxplus_state_version", state.version())
    add("nginxplus_workers_mem_rss", rss)
    add("nginxplus_workers_mem_private", private)
    add("nginxplus_access_denied_total", series.total("requests_denied") + series.total("denied"))
    add("nginxplus_metrics_dropped_total", series.total("dropped"))
    add("nginxplus_reports_dropped_total", series.total("reports_dropped"))
    add_connections(add)
    add_received(add)

    if expires > 0 then
        add("nginxplus_certificate_expiry_timestamp_seconds", expires)
    end

    for service, breaker in pairs(state.breakers()) do
        add("nginxplus_circuit_breaker_state", native_breakers.state(service),
            "," .. labels.of_breaker(service, breaker))
    end

    return found
end


-- The histogram of the times that requests from the wire took.
function _M.received_latency()
    local counters = {}

    for _, name in ipairs(histograms.names("latency", #native_counts.LATENCY_BOUNDS + 1)) do
        counters[name] = series.total(name)
    end

    return histograms.of(counters).latency
end


return _M
