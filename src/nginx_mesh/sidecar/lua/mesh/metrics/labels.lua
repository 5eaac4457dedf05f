-- Writes labels of Prometheus' text format. Pure.

local pairs, ipairs = pairs, ipairs

local _M = {}

local ESCAPES = { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }


-- One label, with a comma before it. The value needs no escaping.
function _M.with(name, value)
    return "," .. name .. '="' .. value .. '"'
end


-- The labels of all tables given (name -> value) as one text, ordered by name.
function _M.format(...)
    local out = {}

    for _, set in ipairs { ... } do
        for name, value in pairs(set) do
            out[#out + 1] = name:gsub("[^%w_]", "_") .. '="' .. value:gsub('[\\"\n]', ESCAPES) .. '"'
        end
    end

    table.sort(out)

    return table.concat(out, ",")
end


-- The labels of an endpoint's series. `endpoint` is the entry of the state, or nil when the state does not have it.
function _M.of_endpoint(cluster, address, endpoint)
    return _M.format(endpoint and endpoint.labels or {}, { upstream = cluster, server = address })
end


-- The labels of a circuit breaker's series. `breaker` is the entry of the state.
function _M.of_breaker(service, breaker)
    return _M.format { upstream = service, breaker = breaker.breaker }
end


return _M
