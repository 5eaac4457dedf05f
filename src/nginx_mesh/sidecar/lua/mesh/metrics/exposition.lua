-- Puts the exposition together, family by family, in the order of families.lua. Pure: what is counted is given, the
-- text goes to a writer.

local families = require "mesh.families"
local group_families = require "mesh.metrics.groups"

local ipairs = ipairs

local RECEIVED_LATENCY = "nginxplus_http_response_latency_ms"

local _M = {}


-- `groups` are prepared groups by kind. `values` has, for a family of the sidecar itself, a list of pairs of labels and
-- value. `latency` is the histogram of the requests from the wire. A family that has nothing to tell is left out.
function _M.write(writer, groups, values, latency)
    for _, family in ipairs(families) do
        local name, kind, _, help = unpack(family)
        local of = group_families.FAMILIES[name]

        if of and groups[of.kind] then
            writer:head(name, kind, help)

            for _, group in ipairs(groups[of.kind]) do
                of.write(writer, group)
            end
        elseif name == RECEIVED_LATENCY then
            writer:head(name, kind, help)
            writer:histogram(name, "", "", latency)
        elseif values[name] then
            writer:head(name, kind, help)

            for _, value in ipairs(values[name]) do
                writer:line(name, "", value[1], "", "", value[2])
            end
        end
    end

    writer:flush()
end


return _M
