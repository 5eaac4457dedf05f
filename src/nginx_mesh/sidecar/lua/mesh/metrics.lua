-- Metrics in Prometheus' text format. Workers count by themselves and add to shared memory every second and on exit.

local state = require "mesh.state"

local dict = ngx.shared.mesh_metrics
local pairs, ipairs = pairs, ipairs

local FLUSH_INTERVAL = 1
local BUCKETS = { 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000 }

local _M = {}

local counts = {}                       -- series -> not yet flushed
local scheduled = false


local function flush()
    scheduled = false

    for series, n in pairs(counts) do
        dict:incr(series, n, 0)
        counts[series] = nil
    end
end


local function add(series, n)
    counts[series] = (counts[series] or 0) + n

    if not scheduled then
        scheduled = true
        ngx.timer.at(FLUSH_INTERVAL, flush)
    end
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


-- A status that is not registered counts as its class's first (RFC 9110, 15): an endpoint that answers with every
-- number makes no series of each.
local REGISTERED = {}

for _, range in ipairs {
    { 100, 104 }, { 200, 208 }, { 226, 226 }, { 300, 308 }, { 400, 418 }, { 421, 426 }, { 428, 429 }, { 431, 431 },
    { 451, 451 }, { 499, 508 }, { 510, 511 },
} do
    for status = range[1], range[2] do
        REGISTERED[status] = true
    end
end


local function code_series(series, status)
    if status < 100 or status > 599 then
        status = 500
    elseif not REGISTERED[status] then
        status = status - status % 100
    end

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


function _M.outbound(cluster_name, endpoint)
    local series = endpoint and cluster_name and upstream_series(cluster_name, endpoint)
    if not series then
        return
    end

    local status = ngx.status
    local names = code_series(series, status)
    local ms = math.max((ngx.now() - ngx.req.start_time()) * 1000, 0)  -- the clock may have been set back

    add(series.requests, 1)
    add(names.responses, 1)
    add(names.count, 1)
    add(names.sum, ms)

    if status == 502 or status == 504 then
        add(series.fails, 1)
    end

    local i = 1
    while BUCKETS[i] and ms > BUCKETS[i] do
        i = i + 1
    end

    add(names[i], 1)
end


function _M.inbound()
    add("http_requests", 1)
end


function _M.denied()
    add("access_denied", 1)
end


local HELP = {
    { "nginxplus_http_requests_total", "counter", "Requests received." },
    { "nginxplus_access_denied_total", "counter", "Requests refused by access control." },
    { "nginxplus_connections_active", "gauge", "Client connections." },
    { "nginxplus_state_version", "gauge", "Version of the sidecar state in force." },
    { "nginxplus_upstream_server_requests", "counter", "Requests sent to an endpoint." },
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
        nginxplus_connections_active = ngx.var.connections_active,
        nginxplus_state_version = string.format("%d", state.version()),
    } do
        plain[name] = { name .. "{" .. own .. "} " .. value }
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
