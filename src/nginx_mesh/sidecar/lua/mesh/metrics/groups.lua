-- The families of metrics that have lines for each group of counters (series.lua): for each endpoint, RateLimit and
-- circuit breaker. Pure.

local histograms = require "mesh.metrics.histograms"
local labels = require "mesh.metrics.labels"
local names = require "mesh.counter_names"

local pairs, ipairs = pairs, ipairs

local HTTP, TCP = "nginxplus_upstream_server_", "nginxplus_stream_upstream_server_"

local _M = {
    -- Name of a family -> the kind of its groups, and `write(writer, group)`.
    FAMILIES = {},
}


local function sorted(map)
    local keys = {}

    for key in pairs(map) do
        keys[#keys + 1] = key
    end

    table.sort(keys)

    return keys
end


-- Computes of a group what its lines need.
function _M.prepare(group)
    group.labels = "," .. group.labels
    group.histograms = histograms.of(group.counters)

    if group.kind == "http" then
        group.classes, group.requests = {}, 0

        for status, histogram in pairs(group.histograms) do
            local class = status:sub(1, 1) .. "xx"

            group.classes[class] = (group.classes[class] or 0) + histogram.n
            group.requests = group.requests + histogram.n
        end
    end
end


local function add_family(kind, name, write)
    _M.FAMILIES[name] = { kind = kind, write = write }
end


local function add_counter(kind, name, counter)
    add_family(kind, name, function(writer, group)
        writer:line(name, "", group.labels, "", "", group.counters[counter] or 0)
    end)
end


add_family("http", HTTP .. "requests", function(writer, group)
    writer:line(HTTP, "requests", group.labels, "", "", group.requests)
end)

add_counter("http", HTTP .. "mtls_requests", "mtls")

add_family("http", HTTP .. "responses", function(writer, group)
    for _, class in ipairs(sorted(group.classes)) do
        writer:line(HTTP, "responses", group.labels, labels.with("code", class), "", group.classes[class])
    end
end)

add_family("http", HTTP .. "response_latency_ms", function(writer, group)
    for _, status in ipairs(sorted(group.histograms)) do
        writer:histogram(HTTP .. "response_latency_ms", group.labels, labels.with("code", status),
                         group.histograms[status])
    end
end)

for _, name in ipairs(names.HTTP_NUMBERS) do
    add_counter("http", HTTP .. name, name)
end

for _, name in ipairs(names.TCP_NUMBERS) do
    add_counter("tcp", TCP .. name, name)
end

add_counter("tcp", TCP .. "mtls_connections", "mtls")

for _, name in ipairs(names.TCP_TIMES) do
    add_family("tcp", TCP .. name, function(writer, group)
        writer:histogram(TCP .. name, group.labels, "", group.histograms[name] or {})
    end)
end

add_counter("ratelimit", "nginxplus_rate_limited_total", "limited")
add_counter("ratelimit", "nginxplus_rate_delayed_total", "delayed")
add_counter("breaker", "nginxplus_circuit_breaker_trips_total", "trips")


return _M
