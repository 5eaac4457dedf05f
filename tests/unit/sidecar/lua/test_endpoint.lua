require "standins"
local endpoint = require "mesh.state.endpoint"

local ONE = { tls = true, spiffe_id = "spiffe://d/a", labels = { dst_pod = "a" } }


local function with(changes)
    local copy = {}

    for name, value in pairs(ONE) do
        copy[name] = value
    end

    for name, value in pairs(changes) do
        copy[name] = value
    end

    return copy
end


describe("an endpoint", function()
    it("is the same with the same identity, mode and labels", function()
        assert.is_true(endpoint.is_same(ONE, with { labels = { dst_pod = "a" } }))
        assert.is_true(endpoint.is_same({ tls = false }, { tls = false, labels = {} }))
    end)

    for name, changes in pairs {
        ["another mode"] = { tls = false },
        ["another identity"] = { spiffe_id = "spiffe://d/b" },
        ["another value of a label"] = { labels = { dst_pod = "b" } },
        ["one label more"] = { labels = { dst_pod = "a", dst_service = "s" } },
        ["one label less"] = { labels = {} },
    } do
        it("is another with " .. name, function()
            assert.is_false(endpoint.is_same(ONE, with(changes)))
            assert.is_false(endpoint.is_same(with(changes), ONE))
        end)
    end
end)
