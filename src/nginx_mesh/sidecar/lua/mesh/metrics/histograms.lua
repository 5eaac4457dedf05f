-- Histograms as counters, which is how series.lua keeps them: "<prefix>:<bucket>" for each bucket, and "<prefix>:sum".
-- Pure.

local pairs = pairs

local _M = {}


-- Adds a histogram (bucket -> number, and "sum") to counters. Returns how many values it has.
function _M.put(counters, prefix, histogram)
    local entries = 0

    for bucket, n in pairs(histogram) do
        counters[prefix .. ":" .. bucket] = n
        entries = entries + (bucket ~= "sum" and n or 0)
    end

    return entries
end


-- The histograms among counters, by prefix. Each has buckets, `sum`, and the number of values as `n`.
function _M.of(counters)
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


-- The names of the counters of a histogram with this number of buckets.
function _M.names(prefix, buckets)
    local names = { prefix .. ":sum" }

    for i = 1, buckets do
        names[i + 1] = prefix .. ":" .. i
    end

    return names
end


return _M
