local standins = require "standins"
local cjson = require "cjson"
local schema = standins.load_anew "mesh.schema"
local shapes = require "mesh.schema.shapes"
local values = require "mesh.values"

local null = cjson.null


describe("a key", function()
    for _, key in ipairs {
        "settings", "identity", "inbound/1", "inbound/65535", "destination/10.0.0.1:80", "destination/[fd00::1]:80",
        "cluster/shop/web:80", "cluster/10.0.0.1:80", "split/shop/web:80", "breaker/shop/web:80", "probe//healthz/a/b",
    } do
        it("is taken: " .. key, function()
            assert.is_nil(schema.check_key(key))
        end)
    end

    for key, reason in pairs {
        [""] = "is not a key of the state",
        ["setting"] = "is not a key of the state",
        ["settings/x"] = "is not a key of the state",
        ["identity/"] = "is not a key of the state",
        ["inbound"] = "is not a key of the state",
        ["inbound/"] = "is not a key of the state",
        ["@version"] = "is not a key of the state",
        ["inbound/0"] = "is not a port",
        ["inbound/080"] = "is not a port",
        ["inbound/65536"] = "is not a port",
        ["inbound/99999999999999999999"] = "is not a port",
        ["inbound/-1"] = "is not a port",
        ["inbound/0x50"] = "is not a port",
        ["inbound/80 "] = "is not a port",
        ["destination/10.0.0.1"] = "is not an address and port",
        ["destination/web:80"] = "is not an address and port",
        ["destination/fd00::1:80"] = "is not an address and port",
        ["destination/10.0.0.1:0"] = "is not an address and port",
        ["destination/10.0.0.1:65536"] = "is not an address and port",
        ["probe/healthz"] = "is not a path",
    } do
        it("is refused: " .. key, function()
            assert.equal(reason, schema.check_key(key))
            assert.equal(reason, schema.check_entry(key, {}))
        end)
    end

    it("is text", function()
        assert.equal("is not a key", schema.check_key(1))
        assert.equal("is not a key", schema.check_key(null))
    end)

    it("is split at its first slash", function()
        assert.same({ "settings" }, { schema.split_key("settings") })
        assert.same({ "cluster", "shop/web:80" }, { schema.split_key("cluster/shop/web:80") })
        assert.same({ "probe", "/a/b" }, { schema.split_key("probe//a/b") })
    end)
end)


describe("an entry", function()
    local function port(limit)
        return { protocols = { "http" }, limits = { limit } }
    end

    it("tells the place of what is wrong in it", function()
        local entry = { protocols = { "http" }, grants = { { target = "a/b", sources = { "x", 1 } } } }
        assert.equal("grants [0]: sources [1]: must be a string", schema.check_entry("inbound/80", entry))
    end)

    it("may have no grants, and null in their place", function()
        assert.is_nil(schema.check_entry("inbound/80", { protocols = {} }))
        assert.is_nil(schema.check_entry("inbound/80", { protocols = {}, grants = null }))
        assert.equal("limits must be a list", schema.check_entry("inbound/80", { protocols = {}, limits = null }))
    end)

    it("is no list, and a list no object", function()
        assert.equal("lacks backends", schema.check_entry("split/a", { "x", split = "a" }))
        assert.equal("protocols must be a list", schema.check_entry("inbound/80", { protocols = { a = "http" } }))
        assert.equal("must be an object", schema.check_entry("cluster/a", "x"))
        assert.equal('endpoints "1": must be a string',
                     schema.check_entry("cluster/a", { lb_method = "random", endpoints = { { tls = false } } }))
    end)

    it("needs the spiffe_id of an endpoint that speaks mTLS", function()
        local function check(endpoint)
            return schema.check_entry("cluster/a", { lb_method = "random", endpoints = { ["10.0.0.1:80"] = endpoint } })
        end

        local reason = 'endpoints "10.0.0.1:80": lacks the spiffe_id that mTLS needs'
        assert.is_nil(check { tls = false })
        assert.is_nil(check { tls = true, spiffe_id = "spiffe://d/x" })
        assert.equal(reason, check { tls = true })
        assert.equal(reason, check { tls = true, spiffe_id = "" })
    end)

    it("names endpoints by address and port", function()
        local entry = { lb_method = "random", endpoints = { web = { tls = false } } }
        assert.equal('endpoints "web": is not an address and port', schema.check_entry("cluster/a", entry))
    end)

    it("limits callers at IP addresses", function()
        local limit = { name = "a/b", rate = 1, addresses = { "10.0.0.1", "fd00::1" } }
        assert.is_nil(schema.check_entry("inbound/80", port(limit)))

        for _, address in ipairs { "10.0.0.1:80", "web", "", "10.0.0.256", "fd00::g" } do
            limit.addresses = { address }
            assert.equal("limits [0]: addresses [0]: is not an IP address",
                         schema.check_entry("inbound/80", port(limit)))
        end
    end)

    it("has whole numbers within bounds", function()
        local bounds = "must be a whole number from -1 to 2147483648"

        for _, delay in ipairs { -1, 0, 2 ^ 31 } do
            assert.is_nil(schema.check_entry("inbound/80", port { name = "a/b", rate = 1, delay = delay }))
        end

        for _, delay in ipairs { -2, 0.5, 2 ^ 31 + 1, 1 / 0, -1 / 0, 0 / 0, "1", null } do
            assert.equal("limits [0]: delay " .. bounds,
                         schema.check_entry("inbound/80", port { name = "a/b", rate = 1, delay = delay }))
        end
    end)

    it("has bundles by trust domain", function()
        local identity = { spiffe_id = "a", svid = "b", key = "c", bundle = "d", federated = { ["a-b.c_1"] = "x" } }
        assert.is_nil(schema.check_entry("identity", identity))

        for _, name in ipairs { "", "A", "a/b", ("a"):rep(256) } do
            identity.federated = { [name] = "x" }
            assert.equal(('federated "%s": is not a trust domain'):format(name),
                         schema.check_entry("identity", identity))
        end
    end)

    it("samples a share of traces, or none", function()
        local settings = {
            mtls_mode = "strict", trust_domain = "d", client_max_body_size = 0, log_level = "warn", log_format = "json",
            addresses = {}, labels = {},
        }

        for _, ratio in ipairs { 0, 0.25, 1, null } do
            settings.sampler_ratio = ratio
            assert.is_nil(schema.check_entry("settings", settings))
        end

        for _, ratio in ipairs { -0.1, 1.1, 0 / 0, "1" } do
            settings.sampler_ratio = ratio
            assert.equal("sampler_ratio must be a number from 0 to 1", schema.check_entry("settings", settings))
        end
    end)
end)


describe("an update", function()
    it("is full or builds on a version", function()
        assert.is_nil(schema.check_update { base = null, version = 1 })
        assert.is_nil(schema.check_update { base = 1, version = 2 })
        assert.equal("lacks base", schema.check_update { version = 2 })
        assert.equal("lacks version", schema.check_update { base = null })
        assert.is_not_nil(schema.check_update { base = 0, version = 2 })
        assert.is_not_nil(schema.check_update { base = 1, version = 2.5 })
    end)

    it("has fields of its own and no others", function()
        local update = {
            base = 1, version = 2, set = { anything = 1 }, delete = { "probe//a" },
            endpoints = { ["shop/web:80"] = { ["10.0.0.1:80"] = { tls = false }, ["10.0.0.2:80"] = null } },
        }
        assert.is_nil(schema.check_update(update))
        update.more = true
        assert.equal("has an unknown field more", schema.check_update(update))
    end)

    it("has endpoints as clusters have them", function()
        local update = { base = 1, version = 2, endpoints = { a = { ["10.0.0.1:80"] = { tls = true } } } }
        assert.equal('endpoints "a": "10.0.0.1:80": lacks the spiffe_id that mTLS needs', schema.check_update(update))
    end)
end)


describe("a tap", function()
    it("says for how long, and how much", function()
        assert.is_nil(schema.check_tap { seconds = 0, max_rps = 1 })
        assert.is_nil(schema.check_tap { seconds = 60, max_rps = 1000, method = "GET", path = "/", lowest = 0,
                                         highest = 999, peers = { "10.0.0.1" } })
    end)

    for name, bad in pairs {
        seconds = { -1, 61, "1" }, max_rps = { 0, 1001 }, method = { 1 }, path = { {} }, lowest = { -1, 1000 },
        highest = { -1, 1000 }, peers = { { "web" }, "10.0.0.1" }, unknown = { 1 },
    } do
        it("is refused for its " .. name, function()
            for _, value in ipairs(bad) do
                local tap = { seconds = 1, max_rps = 1, [name] = value }
                assert.is_truthy(schema.check_tap(tap):find(name, 1, true))
            end
        end)
    end
end)


describe("each value that the state may have", function()
    local function in_both(enum, codes)
        local named = {}

        for _, value in ipairs(enum) do
            assert.is_number(codes[value])
            named[value] = codes[value]
        end

        assert.same(codes, named)
    end

    it("is known to the C module by a number", function()
        local settings = shapes.SINGLE.settings.required
        in_both(settings.mtls_mode.enum, values.MTLS_MODES)
        in_both(settings.log_level.enum, values.LOG_LEVELS)
        in_both(shapes.KEYED.cluster.required.lb_method.enum, values.LB_METHODS)
        in_both(shapes.KEYED.destination.required.protocol.enum, values.PROTOCOL_BITS)
    end)
end)
