-- Rate limits: the leaky bucket of nginx's limit_req, in its units (thousandths of a request).

local access = require "mesh.access"

local now = ngx.now
local floor, max = math.floor, math.max

local _M = {}

-- Excess and time of the last request, by limit name. One per worker: a sidecar has one.
local buckets = {}


-- Seconds to wait, or nil when the request is over the limit.
local function take(limit, time)
    local bucket = buckets[limit.name]

    if not bucket then
        buckets[limit.name] = { excess = 0, last = time }
        return 0
    end

    -- limit.rate is in requests per 1000 s: thousandths of a request per second
    -- the clock may have been set back
    local excess = max(bucket.excess - floor(limit.rate * max(time - bucket.last, 0)) + 1000, 0)

    if excess > (limit.burst or 0) * 1000 then
        return nil
    end

    bucket.excess = excess
    bucket.last = time

    local delay = limit.delay or 0

    if delay < 0 or excess <= delay * 1000 then
        return 0
    end

    return (excess - delay * 1000) / limit.rate
end


local function names(limit, peer)
    return peer and limit.sources and access.names(limit.sources, peer)
end


-- Seconds to wait; nil when a limit is exceeded. A limit without sources is for callers that no other limit names.
function _M.delay(limits, peer)
    local time, wait, named = now(), 0, false

    for _, limit in ipairs(limits) do
        named = named or names(limit, peer)
    end

    for _, limit in ipairs(limits) do
        local default = not limit.sources or #limit.sources == 0

        if (default and not named or names(limit, peer)) and access.matches(limit.matches, true) then
            local seconds = take(limit, time)
            if not seconds then
                return nil
            end

            wait = max(wait, seconds)
        end
    end

    return wait
end


return _M
