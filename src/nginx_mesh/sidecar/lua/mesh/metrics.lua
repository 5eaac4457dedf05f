-- Metrics in Prometheus' text format. The module counts, in each worker; here it is added to shared memory every second
-- and on exit.

local engine = require "mesh.engine"
local state = require "mesh.state"

local dict = ngx.shared.mesh_metrics
local pairs, ipairs = pairs, ipairs

local FLUSH_INTERVAL = 1
local BUCKETS = engine.LATENCY_BOUNDS

local STARTED = ngx.time()                              -- loaded by the master, whose memory the counters are in

local _M = {}


local function add(series, n)
    dict:incr(series, n, 0)
end


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


-- Names of an upstream's series, made once: cluster -> endpoint -> series.
local upstreams = setmetatable({}, { __mode = "k" })


local function upstream_series(cluster_name, endpoint)
    local cluster = state.cluster(cluster_name)
    if not cluster then
        return nil
    end

    local known = upstreams[cluster]
    if not known then
        known = {}
        upstreams[cluster] = known
    end

    local series = known[endpoint]
    if series then
        return series
    end

    local about = cluster.endpoints[endpoint]
    local settings = state.settings()
    local own = labels(settings.labels, about and about.labels or {}, { upstream = cluster_name, server = endpoint })

    series = {
        requests = "nginxplus_upstream_server_requests{" .. own .. "}",
        mtls = "nginxplus_upstream_server_mtls_requests{" .. own .. "}",
        sent = "nginxplus_upstream_server_sent{" .. own .. "}",
        received = "nginxplus_upstream_server_received{" .. own .. "}",
        fails = "nginxplus_upstream_server_fails{" .. own .. "}",
        codes = {},
        buckets = {},
        own = own,
    }
    known[endpoint] = series

    return series
end


local function code_series(series, status)
    local class = (status - status % 100) / 100 .. "xx"
    local names = series.codes[status]

    if not names then
        local code = series.own .. ',code="' .. status .. '"'
        local prefix = "nginxplus_upstream_server_response_latency_ms_"

        names = {
            responses = "nginxplus_upstream_server_responses{" .. series.own .. ',code="' .. class .. '"}',
            sum = prefix .. "sum{" .. code .. "}",
            count = prefix .. "count{" .. code .. "}",
        }

        for i, bound in ipairs(BUCKETS) do
            names[i] = prefix .. "bucket{" .. code .. ',le="' .. bound .. '"}'
        end

        names[#BUCKETS + 1] = prefix .. "bucket{" .. code .. ',le="+Inf"}'
        series.codes[status] = names
    end

    return names
end


local function add_responses(cluster_name, endpoint, status, tls, ms, counts)
    local series = upstream_series(cluster_name, endpoint)
    if not series then
        return
    end

    local names = code_series(series, status)
    local all = 0

    for i, n in ipairs(counts) do
        if n > 0 then
            add(names[i], n)
            all = all + n
        end
    end

    add(series.requests, all)
    add(names.responses, all)
    add(names.count, all)
    add(names.sum, ms)

    if tls then
        add(series.mtls, all)
    end

    if status == 502 or status == 504 then
        add(series.fails, all)
    end
end


-- Labels of a breaker's series.
local function breaker_labels(service, breaker)
    return labels(state.settings().labels, { upstream = service, breaker = breaker.breaker })
end


local function flush()
    add("http_requests", engine.take_requests())

    -- a breaker may be in use before the first settings are
    for service, breaker in pairs(state.settings() and state.breakers() or {}) do
        add("nginxplus_circuit_breaker_trips_total{" .. breaker_labels(service, breaker) .. "}",
            engine.take_breaker_trips(service))
    end

    while true do
        local cluster_name, endpoint, status, tls, ms, counts = engine.take_count()
        if not cluster_name then
            break
        end

        add_responses(cluster_name, endpoint, status, tls, ms, counts)
    end
end


-- In each worker's start.
function _M.start()
    state.before_changes(flush)
    assert(ngx.timer.every(FLUSH_INTERVAL, flush))
end


function _M.denied()
    add("access_denied", 1)
end


-- Names of a RateLimit's series under the settings at hand, made once: there may be many refusals.
local rates = setmetatable({}, { __mode = "k" })


local function rate_series(ratelimit)
    local settings = state.settings()
    local known = rates[settings]

    if not known then
        known = {}
        rates[settings] = known
    end

    local series = known[ratelimit]

    if not series then
        local own = "{" .. labels(settings.labels, { ratelimit = ratelimit }) .. "}"

        series = {
            limited = "nginxplus_rate_limited_total" .. own,
            delayed = "nginxplus_rate_delayed_total" .. own,
        }
        known[ratelimit] = series
    end

    return series
end


-- `what`: "limited" or "delayed".
function _M.rate(what, ratelimit)
    add(rate_series(ratelimit)[what], 1)
end


local HELP = {
    { "nginxplus_http_requests_total", "counter", "Requests received." },
    { "nginxplus_access_denied_total", "counter", "Requests refused by access control." },
    { "nginxplus_rate_limited_total", "counter", "Requests refused by a RateLimit." },
    { "nginxplus_rate_delayed_total", "counter", "Requests that a RateLimit let wait." },
    { "process_start_time_seconds", "gauge", "When the sidecar started, seconds since the epoch." },
    { "nginxplus_connections_active", "gauge", "Client connections." },
    { "nginxplus_state_version", "gauge", "Version of the sidecar state in force." },
    { "nginxplus_circuit_breaker_state", "gauge", "Of a called service: 0 closed, 1 open, 2 half-open." },
    { "nginxplus_circuit_breaker_trips_total", "counter", "Times that a circuit breaker opened." },
    { "nginxplus_upstream_server_requests", "counter", "Requests sent to an endpoint." },
    { "nginxplus_upstream_server_mtls_requests", "counter", "Of these, those by mTLS: the endpoint proves who it is." },
    { "nginxplus_upstream_server_responses", "counter", "Responses of an endpoint by class." },
    { "nginxplus_upstream_server_fails", "counter", "Requests that no endpoint answered." },
    { "nginxplus_upstream_server_response_latency_ms", "histogram", "Time to the whole response, milliseconds." },
}


-- Buckets are stored apart and added up here, as Prometheus wants them.
local function histogram(lines)
    local groups = {}

    for series, value in pairs(lines) do
        local before, bound, after = series:match('^(.*)le="([^"]*)"(.*)$')
        local group = groups[before .. after] or {}
        groups[before .. after] = group
        group[bound] = value
        group.before, group.after = before, after
    end

    local out, sorted = {}, {}

    for name in pairs(groups) do
        sorted[#sorted + 1] = name
    end

    table.sort(sorted)

    for _, name in ipairs(sorted) do
        local group, sum = groups[name], 0

        for i = 1, #BUCKETS + 1 do
            local bound = BUCKETS[i] and tostring(BUCKETS[i]) or "+Inf"
            sum = sum + (group[bound] or 0)
            out[#out + 1] = group.before .. 'le="' .. bound .. '"' .. group.after .. " " .. sum
        end
    end

    return out
end


function _M.expose()
    flush()

    local settings = state.settings()
    local own = settings and labels(settings.labels) or ""
    local plain = {}

    for name, value in pairs {
        nginxplus_http_requests_total = dict:get("http_requests") or 0,
        nginxplus_access_denied_total = dict:get("access_denied") or 0,
        process_start_time_seconds = STARTED,
        nginxplus_connections_active = ngx.var.connections_active,
        nginxplus_state_version = string.format("%d", state.version()),
    } do
        plain[name] = { name .. "{" .. own .. "} " .. value }
    end

    local breakers = {}
    plain.nginxplus_circuit_breaker_state = next(state.breakers()) and breakers

    for service, breaker in pairs(state.breakers()) do
        breakers[#breakers + 1] = "nginxplus_circuit_breaker_state{" .. breaker_labels(service, breaker) .. "} "
            .. engine.breaker_state(service)
    end

    local buckets = {}

    for _, series in ipairs(dict:get_keys(0)) do
        local value = dict:get(series)
        local name = series:match("^([%w_]+){")

        if name and name:find("_bucket$") then
            buckets[series] = value
        elseif name then
            local family = name:gsub("_sum$", ""):gsub("_count$", "")
            plain[family] = plain[family] or {}
            table.insert(plain[family], series .. " " .. value)
        end
    end

    ngx.header["Content-Type"] = "text/plain; version=0.0.4"

    for _, about in ipairs(HELP) do
        local lines = plain[about[1]]

        if lines then
            table.sort(lines)
            ngx.say("# HELP ", about[1], " ", about[3])
            ngx.say("# TYPE ", about[1], " ", about[2])

            if about[2] == "histogram" then
                ngx.say(table.concat(histogram(buckets), "\n"))
            end

            ngx.say(table.concat(lines, "\n"))
        end
    end
end


return _M
