-- Takes what the C module counted in this worker.

local ffi = require "ffi"
local convert = require "mesh.native.convert"
local names = require "mesh.counter_names"

local C = ffi.C
local to_string = convert.to_string

local totals = ffi.new "ngx_mesh_ffi_totals_t"

local _M = {
    -- Upper bounds of the buckets of latency, in milliseconds. One more bucket has no bound.
    LATENCY_BOUNDS = {},
    PAGE_SIZE = tonumber(C.ngx_pagesize),
}

for i = 1, 13 do
    _M.LATENCY_BOUNDS[i] = C.metric_bounds[i - 1]
end


-- A histogram as a table: the counts of the buckets that are not empty by the buckets' numbers (from 1 on), and "sum".
local function histogram(from)
    local found = { sum = tonumber(from.sum) }

    for i = 1, #_M.LATENCY_BOUNDS + 1 do
        local n = from.buckets[i - 1]

        if n > 0 then
            found[i] = n
        end
    end

    return found
end


-- The numbers of an array from index `first` on, by their names.
local function numbers(from, names_of, first)
    local found = {}

    for i, name in ipairs(names_of) do
        found[name] = tonumber(from[first + i - 1])
    end

    return found
end


-- What was counted since the last call and belongs to no endpoint: numbers by the names of TOTALS, and the latency of
-- requests from the wire.
function _M.take_totals()
    C.ngx_mesh_ffi_totals_take(totals)

    return numbers(totals.numbers, names.TOTALS, 0), histogram(totals.latency)
end


local function take_statuses()
    local statuses = {}

    while true do
        local status = C.ngx_mesh_ffi_status_take()

        if status == nil then
            return statuses
        end

        statuses[tonumber(status.status)] = histogram(status.latency)
    end
end


-- What was counted of one endpoint since it was last taken; nil when nothing is left to take. `labels` are nil when the
-- state has them. `http` and, when there was any TCP, `tcp` are numbers by their names; `statuses` are histograms by
-- HTTP status and `times` histograms by name.
function _M.take_endpoint()
    local counts = C.ngx_mesh_ffi_counts_take()

    if counts == nil then
        return nil
    end

    local taken = {
        cluster = to_string(counts.cluster),
        endpoint = to_string(counts.endpoint),
        labels = counts.labels.len > 0 and to_string(counts.labels) or nil,
        tls = counts.tls ~= 0,
        http = numbers(counts.numbers, names.HTTP_NUMBERS, 0),
        statuses = take_statuses(),
    }

    if counts.tcp ~= 0 then
        taken.tcp = numbers(counts.numbers, names.TCP_NUMBERS, #names.HTTP_NUMBERS)
        taken.times = {}

        for i, name in ipairs(names.TCP_TIMES) do
            taken.times[name] = histogram(counts.times[i - 1])
        end
    end

    return taken
end


-- Connections since the sidecar started: those that were accepted, and those of them that the sidecar had room for.
function _M.connections()
    return tonumber(C.ngx_stat_accepted[0]), tonumber(C.ngx_stat_handled[0])
end


return _M
