-- Metrics in Prometheus' text format. The module counts, in each worker; here it is added to shared memory every second
-- and on exit.

local engine = require "mesh.engine"
local families = require "mesh.families"
local series = require "mesh.series"
local state = require "mesh.state"

local pairs, ipairs = pairs, ipairs

local FLUSH_INTERVAL = 1
local LINES = 500                                       -- are written at once; then requests have their turn
local EXACT = 1e14                                      -- numbers below are written with all their digits
local BOUNDS = engine.LATENCY_BOUNDS

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


-- Returns the number of its entries.
local function put_histogram(counters, prefix, histogram)
    local all = 0

    for bucket, n in pairs(histogram) do
        counters[prefix .. ":" .. bucket] = n
        all = all + (bucket ~= "sum" and n or 0)
    end

    return all
end


local function add_http(counts)
    local counters, all = counts.http, 0

    for status, histogram in pairs(counts.statuses) do
        all = all + put_histogram(counters, status, histogram)
    end

    counters.mtls = counts.tls and all or 0

    for _, n in pairs(counters) do
        if n > 0 then
            series.add(counted_group("http", counts), counters)
            return
        end
    end
end


local function add_tcp(counts)
    local counters = counts.tcp

    counters.mtls = counts.tls and counters.connections or 0

    for name, histogram in pairs(counts.times) do
        put_histogram(counters, name, histogram)
    end

    series.add(counted_group("tcp", counts), counters)
end


local function breaker_group(service, breaker)
    return series.group("breaker", service, breaker.breaker, labels { upstream = service, breaker = breaker.breaker })
end


local function flush()
    local numbers, latency = engine.take_totals()

    put_histogram(numbers, "latency", latency)
    numbers.reports_dropped = engine.take_reports_dropped()

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

        add_http(counts)

        if counts.tcp then
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
    local names = { "requests_denied", "dropped", "reports_dropped", "latency:sum" }

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


-- The exposition. A line is put together of fragments that most lines share, and never is a text of its own: there may
-- be tens of thousands. After some of them requests have their turn.

local Out = {}
Out.__index = Out


function Out:flush()
    ngx.print(self.fragments)
    self.fragments, self.n, self.lines = {}, 0, 0
    ngx.flush(true)
    ngx.sleep(0)
end


-- `name` and `suffix` are one; so are `own`, `more` and `last`, labels with a comma before each.
function Out:line(name, suffix, own, more, last, value)
    local fragments, n = self.fragments, self.n

    fragments[n + 1] = name
    fragments[n + 2] = suffix
    fragments[n + 3] = self.pod
    fragments[n + 4] = own
    fragments[n + 5] = more
    fragments[n + 6] = last
    fragments[n + 7] = "} "
    fragments[n + 8] = value < EXACT and value or string.format("%d", value)
    fragments[n + 9] = "\n"

    self.n = n + 9
    self.lines = self.lines + 1

    if self.lines == LINES then
        self:flush()
    end
end


local LE = {}

for i = 1, #BOUNDS + 1 do
    LE[i] = ',le="' .. (BOUNDS[i] or "+Inf") .. '"'
end


-- `buckets` are stored apart, and are added up here, as Prometheus wants them.
function Out:histogram(name, own, more, histogram)
    local n = 0

    for i = 1, #LE do
        n = n + (histogram[i] or 0)
        self:line(name, "_bucket", own, more, LE[i], n)
    end

    self:line(name, "_sum", own, more, "", histogram.sum or 0)
    self:line(name, "_count", own, more, "", n)
end


local function with_label(name, value)
    return "," .. name .. '="' .. value .. '"'
end


-- Counters "<prefix>:<bucket>" and "<prefix>:sum" as histograms by prefix, with their number of entries.
local function histograms_of(counters)
    local found = {}

    for name, n in pairs(counters) do
        local prefix, part = name:match("^(.*):(.*)$")

        if prefix then
            local histogram = found[prefix] or { n = 0 }
            found[prefix] = histogram

            if part == "sum" then
                histogram.sum = n
            else
                histogram[tonumber(part)] = n
                histogram.n = histogram.n + n
            end
        end
    end

    return found
end


local function sorted(map)
    local keys = {}

    for key in pairs(map) do
        keys[#keys + 1] = key
    end

    table.sort(keys)

    return keys
end


-- What the lines of a group need. Groups are of one of the kinds below.
local function prepare(group)
    group.labels = "," .. group.labels
    group.histograms = histograms_of(group.counters)

    if group.kind == "http" then
        group.classes, group.all = {}, 0

        for status, histogram in pairs(group.histograms) do
            local class = status:sub(1, 1) .. "xx"

            group.classes[class] = (group.classes[class] or 0) + histogram.n
            group.all = group.all + histogram.n
        end
    end
end


-- Families that have lines for each group of a kind: family -> kind, and what writes them.
local OF_GROUPS = {}


local function of_groups(kind, family, write)
    OF_GROUPS[family] = { kind = kind, write = write }
end


local function of_counter(kind, family, counter)
    of_groups(kind, family, function(out, group)
        out:line(family, "", group.labels, "", "", group.counters[counter] or 0)
    end)
end


local HTTP, TCP = "nginxplus_upstream_server_", "nginxplus_stream_upstream_server_"

of_groups("http", HTTP .. "requests", function(out, group)
    out:line(HTTP, "requests", group.labels, "", "", group.all)
end)

of_counter("http", HTTP .. "mtls_requests", "mtls")

of_groups("http", HTTP .. "responses", function(out, group)
    for _, class in ipairs(sorted(group.classes)) do
        out:line(HTTP, "responses", group.labels, with_label("code", class), "", group.classes[class])
    end
end)

of_groups("http", HTTP .. "response_latency_ms", function(out, group)
    for _, status in ipairs(sorted(group.histograms)) do
        local code = with_label("code", status)
        out:histogram(HTTP .. "response_latency_ms", group.labels, code, group.histograms[status])
    end
end)

for _, name in ipairs(engine.HTTP_NUMBERS) do
    of_counter("http", HTTP .. name, name)
end

for _, name in ipairs(engine.TCP_NUMBERS) do
    of_counter("tcp", TCP .. name, name)
end

of_counter("tcp", TCP .. "mtls_connections", "mtls")

for _, name in ipairs(engine.TCP_TIMES) do
    of_groups("tcp", TCP .. name, function(out, group)
        out:histogram(TCP .. name, group.labels, "", group.histograms[name] or {})
    end)
end

of_counter("ratelimit", "nginxplus_rate_limited_total", "limited")
of_counter("ratelimit", "nginxplus_rate_delayed_total", "delayed")
of_counter("breaker", "nginxplus_circuit_breaker_trips_total", "trips")


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


-- Families of the sidecar itself, as they are now: family -> pairs of labels and value.
local function own_values()
    local found = {}

    local function add(family, value, own)
        found[family] = found[family] or {}
        table.insert(found[family], { own or "", tonumber(value) })
    end

    local rss, private = memory()
    local accepted, handled = engine.connections()
    local expires = engine.identity_expires()
    local requests = 0

    add("process_start_time_seconds", STARTED)
    add("nginxplus_state_version", state.version())
    add("nginxplus_workers_mem_rss", rss)
    add("nginxplus_workers_mem_private", private)
    add("nginxplus_connections_accepted", accepted)
    add("nginxplus_connections_handled", handled)
    add("nginxplus_connections_dropped", accepted - handled)
    add("nginxplus_connections_active", ngx.var.connections_active)
    add("nginxplus_connections_reading", ngx.var.connections_reading)
    add("nginxplus_connections_writing", ngx.var.connections_writing)
    add("nginxplus_connections_waiting", ngx.var.connections_waiting)
    add("nginxplus_connections_idle", ngx.var.connections_waiting)
    add("nginxplus_access_denied_total", series.total("requests_denied") + series.total("denied"))
    add("nginxplus_metrics_dropped_total", series.total("dropped"))
    add("nginxplus_reports_dropped_total", series.total("reports_dropped"))

    if expires > 0 then
        add("nginxplus_certificate_expiry_timestamp_seconds", expires)
    end

    for _, side in ipairs { "client", "server" } do
        for _, result in ipairs { "ok", "failed" } do
            add("nginxplus_tls_handshakes_total", series.total(side .. "_" .. result),
                with_label("side", side) .. with_label("result", result))
        end
    end

    for class = 1, 5 do
        local n = series.total(class .. "xx")

        requests = requests + n
        add("nginxplus_http_responses_total", n, with_label("code", class .. "xx"))
    end

    add("nginxplus_http_requests_total", requests)

    for _, name in ipairs(engine.TOTALS) do
        local status = name:match("^session_(%d+)$")

        if status then
            add("nginxplus_stream_connections_total", series.total(name), with_label("status", status))
        end
    end

    for service, breaker in pairs(state.breakers()) do
        add("nginxplus_circuit_breaker_state", engine.breaker_state(service),
            "," .. labels { upstream = service, breaker = breaker.breaker })
    end

    return found
end


local function received_latency()
    local counters = {}

    for _, name in ipairs(totals()) do
        if name:find("^latency:") then
            counters[name] = series.total(name)
        end
    end

    return histograms_of(counters).latency
end


local function head(out, family)
    local fragments, n = out.fragments, out.n

    fragments[n + 1] = "# HELP " .. family[1] .. " " .. family[4] .. "\n"
    fragments[n + 2] = "# TYPE " .. family[1] .. " " .. family[2] .. "\n"

    out.n = n + 2
end


function _M.expose()
    flush()

    local settings = state.settings()
    -- before there is a state, a label that is empty: to Prometheus it is not there
    local pod = settings and next(settings.labels) and labels(settings.labels) or 'pod=""'
    local out = setmetatable({ pod = "{" .. pod, fragments = {}, n = 0, lines = 0 }, Out)
    local values, latency = own_values(), received_latency()
    local groups = series.groups(prepare)

    ngx.header["Content-Type"] = "text/plain; version=0.0.4"

    for _, family in ipairs(families) do
        local name = family[1]
        local of = OF_GROUPS[name]

        if of and groups[of.kind] then
            head(out, family)

            for _, group in ipairs(groups[of.kind]) do
                of.write(out, group)
            end
        elseif name == "nginxplus_http_response_latency_ms" then
            head(out, family)
            out:histogram(name, "", "", latency)
        elseif values[name] then
            head(out, family)

            for _, value in ipairs(values[name]) do
                out:line(name, "", value[1], "", "", value[2])
            end
        end
    end

    out:flush()
end


return _M
