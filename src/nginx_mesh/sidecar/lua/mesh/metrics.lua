-- Metrics in Prometheus' text format. The module counts, in each worker; here it is added to shared memory every second
-- and on exit.

local engine = require "mesh.engine"
local families = require "mesh.families"
local series = require "mesh.series"
local state = require "mesh.state"

local pairs, ipairs = pairs, ipairs

local FLUSH_INTERVAL = 1
local LINES = 2000                                      -- are written at once; then requests have their turn
local BOUNDS = engine.LATENCY_BOUNDS

local KNOWN = {}

for _, family in ipairs(families) do
    KNOWN[family[1]] = true
end

local STARTED = ngx.time()                              -- loaded by the master, whose memory the counters are in

local _M = {
    SWEEP_INTERVAL = 60,
}


local function escape(value)
    return (value:gsub('[\\"\n]', { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }))
end


local function labels(...)
    local out = {}

    for _, set in ipairs { ... } do
        for name, value in pairs(set) do
            out[#out + 1] = name:gsub("[^%w_]", "_") .. '="' .. escape(value) .. '"'
        end
    end

    table.sort(out)

    return table.concat(out, ",")
end


-- Labels of an endpoint's series; `about` is what the state says of it, if anything.
local function endpoint_labels(cluster_name, address, about)
    return labels(about and about.labels or {}, { upstream = cluster_name, server = address })
end


-- Groups of endpoints, made once: cluster (as the state has it) -> kind -> address -> group.
local endpoints = setmetatable({}, { __mode = "k" })


local function endpoint_group(kind, name, cluster, address)
    local known = endpoints[cluster] or { http = {}, tcp = {} }
    endpoints[cluster] = known

    if not known[kind][address] then
        local own = endpoint_labels(name, address, cluster.endpoints[address])
        known[kind][address] = series.group(kind, name, address, own)
    end

    return known[kind][address]
end


local function counted_group(kind, counts)
    local name, address = counts.cluster, counts.endpoint
    local cluster = not counts.labels and state.peek(name)

    if cluster then
        return endpoint_group(kind, name, cluster, address)
    end

    return series.group(kind, name, address, counts.labels or endpoint_labels(name, address))
end


local function put_histogram(counters, prefix, histogram)
    for i, n in ipairs(histogram.buckets) do
        counters[prefix .. ":" .. i] = n
    end

    counters[prefix .. ":sum"] = histogram.sum
end


local function add_http(counts)
    local counters = counts.http

    for status, histogram in pairs(counts.statuses) do
        put_histogram(counters, status, histogram)
        counters.mtls = (counters.mtls or 0) + (counts.tls and histogram.count or 0)
    end

    series.add(counted_group("http", counts), counters)
end


local function add_tcp(counts)
    local counters = counts.tcp

    for name, histogram in pairs(counts.times) do
        put_histogram(counters, name, histogram)
    end

    series.add(counted_group("tcp", counts), counters)
end


local function has_any(numbers, histograms)
    for _, n in pairs(numbers) do
        if n > 0 then
            return true
        end
    end

    for _, histogram in pairs(histograms) do
        if histogram.count > 0 then
            return true
        end
    end
end


local function breaker_group(service, breaker)
    return series.group("breaker", service, breaker.breaker, labels { upstream = service, breaker = breaker.breaker })
end


local function flush()
    local numbers, latency = engine.take_totals()

    put_histogram(numbers, "latency", latency)

    for name, n in pairs(numbers) do
        series.add_total(name, n)
    end

    -- a breaker may be in use before the first settings are
    for service, breaker in pairs(state.breakers()) do
        series.add(breaker_group(service, breaker), { trips = engine.take_breaker_trips(service) })
    end

    while true do
        local counts = engine.take_counts()

        if not counts then
            break
        end

        if has_any(counts.http, counts.statuses) then
            add_http(counts)
        end

        if has_any(counts.tcp, counts.times) then
            add_tcp(counts)
        end
    end
end


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
            local breaker = state.peek_breaker(subject)
            return breaker and breaker.breaker == member
        end

        -- those that this worker does not use are decoded for this
        local cluster = clusters[subject] or state.peek(subject)
        clusters[subject] = cluster

        return cluster and cluster.endpoints[member] and endpoint_group(kind, subject, cluster, member) == group
    end)
end


local function totals()
    local names = { "requests_denied", "dropped", "latency:sum" }

    for i = 1, #BOUNDS + 1 do
        names[#names + 1] = "latency:" .. i
    end

    for _, name in ipairs(engine.TOTALS) do
        names[#names + 1] = name
    end

    return names
end


-- In each worker's start.
function _M.start()
    series.start(totals())
    state.before_changes(flush, endpoint_labels)
    assert(ngx.timer.every(FLUSH_INTERVAL, flush))

    if ngx.worker.id() == 0 then
        assert(ngx.timer.every(_M.SWEEP_INTERVAL, sweep))
    end
end


function _M.denied()
    series.add_total("requests_denied", 1)
end


-- `what`: "limited" or "delayed".
function _M.rate(what, ratelimit)
    series.add(series.group("ratelimit", ratelimit, "", labels { ratelimit = ratelimit }), { [what] = 1 })
end


-- The exposition: samples by family.

local function number(value)
    return string.format("%d", value)
end


local Samples = {}
Samples.__index = Samples


-- `family` has a sample; labels as texts, with a comma before each.
function Samples:add(family, own, value, suffix)
    local lines = self[family]

    if not lines then
        assert(KNOWN[family], family)
        lines = {}
        self[family] = lines
    end

    local text = self.own .. own

    lines[#lines + 1] = family .. (suffix or "") .. "{" .. text:gsub("^,", "") .. "} " .. value
end


-- `counters` are stored by bucket, and are added up here, as Prometheus wants them.
function Samples:histogram(family, own, counters, prefix)
    local n = 0

    for i = 1, #BOUNDS + 1 do
        n = n + (counters[prefix .. ":" .. i] or 0)
        self:add(family, own .. ',le="' .. (BOUNDS[i] or "+Inf") .. '"', number(n), "_bucket")
    end

    self:add(family, own, number(counters[prefix .. ":sum"] or 0), "_sum")
    self:add(family, own, number(n), "_count")

    return n
end


local EXPOSE = {}


function EXPOSE.http(samples, own, counters)
    local server = "nginxplus_upstream_server_"
    local classes, statuses, all = {}, {}, 0

    for name in pairs(counters) do
        local status = name:match("^(%d+):")

        if status then
            statuses[status] = true
        end
    end

    for status in pairs(statuses) do
        local code = ',code="' .. status .. '"'
        local n = samples:histogram(server .. "response_latency_ms", own .. code, counters, status)
        local class = status:sub(1, 1) .. "xx"

        classes[class] = (classes[class] or 0) + n
        all = all + n
    end

    for class, n in pairs(classes) do
        samples:add(server .. "responses", own .. ',code="' .. class .. '"', number(n))
    end

    samples:add(server .. "requests", own, number(all))
    samples:add(server .. "mtls_requests", own, number(counters.mtls or 0))

    for _, name in ipairs(engine.HTTP_NUMBERS) do
        samples:add(server .. name, own, number(counters[name] or 0))
    end
end


function EXPOSE.tcp(samples, own, counters)
    local server = "nginxplus_stream_upstream_server_"

    for _, name in ipairs(engine.TCP_NUMBERS) do
        samples:add(server .. name, own, number(counters[name] or 0))
    end

    for _, name in ipairs(engine.TCP_TIMES) do
        samples:histogram(server .. name, own, counters, name)
    end
end


function EXPOSE.ratelimit(samples, own, counters)
    samples:add("nginxplus_rate_limited_total", own, number(counters.limited or 0))
    samples:add("nginxplus_rate_delayed_total", own, number(counters.delayed or 0))
end


function EXPOSE.breaker(samples, own, counters)
    samples:add("nginxplus_circuit_breaker_trips_total", own, number(counters.trips or 0))
end


-- Bytes: all of the workers, and what is theirs alone.
local function memory()
    local rss, private = 0, 0

    for _, pid in ipairs(ngx.worker.pids()) do
        local file = io.open("/proc/" .. pid .. "/statm")

        if file then
            local resident, shared = file:read("*a"):match("^%d+ (%d+) (%d+)")
            file:close()
            rss = rss + resident * engine.PAGE_SIZE
            private = private + (resident - shared) * engine.PAGE_SIZE
        end
    end

    return rss, private
end


local function add_connections(samples)
    local connections = "nginxplus_connections_"
    local accepted, handled = engine.connections()

    samples:add(connections .. "accepted", "", number(accepted))
    samples:add(connections .. "handled", "", number(handled))
    samples:add(connections .. "dropped", "", number(accepted - handled))
    samples:add(connections .. "active", "", ngx.var.connections_active)
    samples:add(connections .. "reading", "", ngx.var.connections_reading)
    samples:add(connections .. "writing", "", ngx.var.connections_writing)
    samples:add(connections .. "waiting", "", ngx.var.connections_waiting)
    samples:add(connections .. "idle", "", ngx.var.connections_waiting)
end


local function add_received(samples)
    local latency = {}

    for _, name in ipairs(totals()) do
        if name:find("^latency:") then
            latency[name] = series.total(name)
        end
    end

    for class = 1, 5 do
        local code = class .. "xx"
        samples:add("nginxplus_http_responses_total", ',code="' .. code .. '"', number(series.total(code)))
    end

    local n = samples:histogram("nginxplus_http_response_latency_ms", "", latency, "latency")
    samples:add("nginxplus_http_requests_total", "", number(n))

    for _, name in ipairs(engine.TOTALS) do
        local status = name:match("^session_(%d+)$")

        if status then
            samples:add("nginxplus_stream_connections_total", ',status="' .. status .. '"', number(series.total(name)))
        end
    end
end


local function add_plain(samples)
    local rss, private = memory()
    local expires = engine.identity_expires()

    samples:add("process_start_time_seconds", "", number(STARTED))
    samples:add("nginxplus_state_version", "", number(state.version()))
    samples:add("nginxplus_workers_mem_rss", "", number(rss))
    samples:add("nginxplus_workers_mem_private", "", number(private))

    if expires > 0 then
        samples:add("nginxplus_certificate_expiry_timestamp_seconds", "", number(expires))
    end

    for _, side in ipairs { "client", "server" } do
        for _, result in ipairs { "ok", "failed" } do
            samples:add("nginxplus_tls_handshakes_total", ',side="' .. side .. '",result="' .. result .. '"',
                        number(series.total(side .. "_" .. result)))
        end
    end

    samples:add("nginxplus_access_denied_total", "", number(series.total("requests_denied") + series.total("denied")))
    samples:add("nginxplus_metrics_dropped_total", "", number(series.total("dropped")))

    for service, breaker in pairs(state.breakers()) do
        samples:add("nginxplus_circuit_breaker_state",
                    "," .. labels { upstream = service, breaker = breaker.breaker },
                    number(engine.breaker_state(service)))
    end
end


-- All that is exposed, as it is now: numbers that belong together are of one moment.
local function collect()
    flush()

    local settings = state.settings()
    local own = settings and labels(settings.labels) or ""
    local samples = setmetatable({ own = own ~= "" and "," .. own or "" }, Samples)

    add_plain(samples)
    add_connections(samples)
    add_received(samples)

    for _, group in ipairs(series.groups()) do
        EXPOSE[group.kind](samples, "," .. group.labels, group.counters)
    end

    return samples
end


function _M.expose()
    local samples = collect()
    local written = 0

    ngx.header["Content-Type"] = "text/plain; version=0.0.4"

    for _, family in ipairs(families) do
        local name, kind, _, help = unpack(family)
        local lines = samples[name]

        if lines then
            ngx.say("# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n", table.concat(lines, "\n"))
            written = written + #lines

            if written > LINES then
                written = 0
                ngx.flush(true)
            end
        end
    end
end


return _M
