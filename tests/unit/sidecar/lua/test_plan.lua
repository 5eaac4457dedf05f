require "standins"
local cjson = require "cjson"
local plan = require "mesh.state.plan"

local null = cjson.null

local SETTINGS = {
    mtls_mode = "off", trust_domain = "d", client_max_body_size = 0, log_level = "warn", log_format = "json",
    addresses = {}, labels = {},
}


-- A state of entries, as the planner asks for it.
local function state(entries)
    local raw = {}

    for key, value in pairs(entries) do
        raw[key] = cjson.encode(value)
    end

    return {
        get = function(key) return raw[key] end,
        keys = function()
            local keys = {}
            for key in pairs(raw) do
                keys[#keys + 1] = key
            end
            return keys
        end,
    }
end


local function changes(update, entries, certain)
    local found, key, reason = plan.changes(update, state(entries), certain ~= false)

    for name, raw in pairs(found or {}) do
        found[name] = raw and cjson.decode(raw)
    end

    return found, key, reason
end


local WEB = {
    lb_method = "random",
    endpoints = { ["10.0.0.1:80"] = { tls = false }, ["10.0.0.2:80"] = { tls = false } },
}


describe("what an update changes", function()
    it("is what it sets and deletes", function()
        local update = { base = 1, version = 2, set = { ["cluster/a"] = WEB }, delete = { "cluster/b", "probe//x" } }
        assert.same({ ["cluster/a"] = WEB, ["cluster/b"] = false, ["probe//x"] = false }, (changes(update, {})))
    end)

    it("is nothing where an entry is as it was", function()
        local update = { base = 1, version = 2, set = { ["cluster/a"] = WEB } }
        assert.same({}, (changes(update, { ["cluster/a"] = WEB })))
    end)

    it("is also what seems to be as it was, when an update before has failed", function()
        local update = { base = null, version = 2, set = { settings = SETTINGS, ["cluster/a"] = WEB } }
        assert.same(WEB, changes(update, { ["cluster/a"] = WEB }, false)["cluster/a"])
    end)

    it("is all that a full state does not have", function()
        local update = { base = null, version = 2, set = { settings = SETTINGS } }
        assert.same({ settings = SETTINGS, ["cluster/a"] = false }, (changes(update, { ["cluster/a"] = WEB })))
    end)

    it("is what it sets and not what it deletes, where it does both", function()
        local update = { base = 1, version = 2, set = { ["cluster/a"] = WEB }, delete = { "cluster/a" } }
        assert.same({ ["cluster/a"] = WEB }, (changes(update, {})))
    end)
end)


describe("single endpoints", function()
    local function patched(endpoints, set)
        local update = { base = 1, version = 2, set = set, endpoints = { a = endpoints } }
        return changes(update, { ["cluster/a"] = WEB })
    end

    it("are added to, replaced in and deleted from the cluster that the state has", function()
        local found = patched {
            ["10.0.0.1:80"] = null,
            ["10.0.0.2:80"] = { tls = true },
            ["10.0.0.3:80"] = { tls = false },
        }
        assert.same({ ["10.0.0.2:80"] = { tls = true }, ["10.0.0.3:80"] = { tls = false } },
                    found["cluster/a"].endpoints)
        assert.equal("random", found["cluster/a"].lb_method)
    end)

    it("apply to the cluster that the same update sets", function()
        local set = { ["cluster/a"] = { lb_method = "least_conn", endpoints = {} } }
        local found = patched({ ["10.0.0.3:80"] = { tls = false } }, set)
        assert.same({ lb_method = "least_conn", endpoints = { ["10.0.0.3:80"] = { tls = false } } }, found["cluster/a"])
    end)

    it("are refused for a cluster that there is not, or is no longer", function()
        local reason = "endpoints of a cluster that the state does not have"
        local update = { base = 1, version = 2, endpoints = { b = {} } }
        assert.same({ nil, "cluster/b", reason }, { changes(update, { ["cluster/a"] = WEB }) })
        update = { base = 1, version = 2, delete = { "cluster/b" }, endpoints = { b = {} } }
        assert.same({ nil, "cluster/b", reason }, { changes(update, { ["cluster/b"] = WEB }) })
    end)
end)


describe("an update is refused", function()
    it("for an entry that is malformed", function()
        local update = { base = 1, version = 2, set = { ["cluster/a"] = { lb_method = "random" } } }
        assert.same({ nil, "cluster/a", "lacks endpoints" }, { changes(update, {}) })
    end)

    it("for the deletion of what is no key", function()
        local update = { base = 1, version = 2, delete = { "inbound/x" } }
        assert.same({ nil, "inbound/x", "is not a port" }, { changes(update, {}) })
    end)

    it("when it would leave no settings", function()
        local _, key, reason = changes({ base = 1, version = 2, delete = { "settings" } }, { settings = SETTINGS })
        assert.same({ "settings", "a state cannot be without them" }, { key, reason })
        _, key, reason = changes({ base = null, version = 2, set = {} }, {})
        assert.same({ "settings", "a full state has to set them" }, { key, reason })
    end)
end)
