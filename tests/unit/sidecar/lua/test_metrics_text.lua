require "standins"
local exposition = require "mesh.metrics.exposition"
local families = require "mesh.families"
local groups = require "mesh.metrics.groups"
local histograms = require "mesh.metrics.histograms"
local labels = require "mesh.metrics.labels"
local writer = require "mesh.metrics.writer"

local BOUNDS = { 1, 10 }


-- The text of an exposition, and the numbers of fragments in each write.
local function text_of(prepared, values, latency)
    local out, writes = {}, {}
    local to = writer.new('pod="p"', BOUNDS, function(fragments)
        writes[#writes + 1] = #fragments
        out[#out + 1] = table.concat(fragments)
    end)

    exposition.write(to, prepared, values, latency)

    return table.concat(out), writes
end


local function group(kind, own, counters)
    local made = { kind = kind, labels = own, counters = counters }
    groups.prepare(made)

    return { [kind] = { made } }
end


describe("labels", function()
    it("are ordered by name, whichever table they come from", function()
        assert.equal('a="1",b="2",c="3"', labels.format({ c = "3", a = "1" }, { b = "2" }))
        assert.equal("", labels.format {})
    end)

    it("have their values escaped and their names made into names", function()
        assert.equal([[a_b_c="x\"y\\z\n"]], labels.format { ["a-b.c"] = 'x"y\\z\n' })
    end)

    it("of an endpoint name cluster and address, and what the state knows", function()
        assert.equal('dst_pod="p",server="10.0.0.1:80",upstream="shop/web:80"',
                     labels.of_endpoint("shop/web:80", "10.0.0.1:80", { labels = { dst_pod = "p" } }))
        assert.equal('server="10.0.0.1:80",upstream="shop/web:80"',
                     labels.of_endpoint("shop/web:80", "10.0.0.1:80", nil))
    end)

    it("of a breaker name the service and the object", function()
        assert.equal('breaker="shop/b",upstream="shop/web:80"',
                     labels.of_breaker("shop/web:80", { breaker = "shop/b" }))
    end)

    it("are put one behind another with commas", function()
        assert.equal(',code="2xx"', labels.with("code", "2xx"))
    end)
end)


describe("a histogram", function()
    it("becomes counters, and again a histogram", function()
        local counters = { sent = 5 }
        assert.equal(7, histograms.put(counters, "200", { [1] = 3, [3] = 4, sum = 55 }))
        assert.same({ sent = 5, ["200:1"] = 3, ["200:3"] = 4, ["200:sum"] = 55 }, counters)
        assert.same({ ["200"] = { [1] = 3, [3] = 4, sum = 55, n = 7 } }, histograms.of(counters))
    end)

    it("has a counter for each bucket and the sum", function()
        assert.same({ "latency:sum", "latency:1", "latency:2" }, histograms.names("latency", 2))
    end)
end)


describe("the exposition", function()
    it("has what the sidecar itself counts, with head lines, in the order of the families", function()
        local values = {
            nginxplus_http_responses_total = { { ',code="2xx"', 7 }, { ',code="5xx"', 0 } },
            nginxplus_state_version = { { "", 3 } },
        }
        assert.equal([[
# HELP nginxplus_state_version Version of the sidecar state in force.
# TYPE nginxplus_state_version gauge
nginxplus_state_version{pod="p"} 3
# HELP nginxplus_http_responses_total Requests received from the wire, by the class of the response.
# TYPE nginxplus_http_responses_total counter
nginxplus_http_responses_total{pod="p",code="2xx"} 7
nginxplus_http_responses_total{pod="p",code="5xx"} 0
# HELP nginxplus_http_response_latency_ms Time in ms from the start of a request from the wire to its end.
# TYPE nginxplus_http_response_latency_ms histogram
nginxplus_http_response_latency_ms_bucket{pod="p",le="1"} 2
nginxplus_http_response_latency_ms_bucket{pod="p",le="10"} 2
nginxplus_http_response_latency_ms_bucket{pod="p",le="+Inf"} 7
nginxplus_http_response_latency_ms_sum{pod="p"} 500
nginxplus_http_response_latency_ms_count{pod="p"} 7
]], (text_of({}, values, { [1] = 2, [3] = 5, sum = 500 })))
    end)

    it("has of an endpoint's requests all families, by status and class", function()
        local counters = { sent = 10, received = 20, fails = 1, mtls = 6 }
        histograms.put(counters, "200", { [1] = 4, sum = 4 })
        histograms.put(counters, "204", { [2] = 1, sum = 9 })
        histograms.put(counters, "503", { [3] = 1, sum = 99 })
        local text = text_of(group("http", 'upstream="u"', counters), {}, {})

        for _, line in ipairs {
            'requests{pod="p",upstream="u"} 6',
            'mtls_requests{pod="p",upstream="u"} 6',
            'responses{pod="p",upstream="u",code="2xx"} 5',
            'responses{pod="p",upstream="u",code="5xx"} 1',
            'response_latency_ms_bucket{pod="p",upstream="u",code="204",le="1"} 0',
            'response_latency_ms_bucket{pod="p",upstream="u",code="204",le="10"} 1',
            'response_latency_ms_bucket{pod="p",upstream="u",code="204",le="+Inf"} 1',
            'response_latency_ms_sum{pod="p",upstream="u",code="503"} 99',
            'response_latency_ms_count{pod="p",upstream="u",code="200"} 4',
            'sent{pod="p",upstream="u"} 10',
            'received{pod="p",upstream="u"} 20',
            'fails{pod="p",upstream="u"} 1',
        } do
            assert.is_truthy(text:find("\nnginxplus_upstream_server_" .. line .. "\n", 1, true), line)
        end

        assert.is_nil(text:find("stream_upstream", 1, true))
    end)

    it("has of an endpoint's TCP connections all families, those without a value too", function()
        local counters = { connections = 3, sent = 1, received = 2, fails = 0, mtls = 3 }
        histograms.put(counters, "connect_time", { [1] = 3, sum = 2 })
        local text = text_of(group("tcp", 'upstream="u"', counters), {}, {})

        for _, line in ipairs {
            'connections{pod="p",upstream="u"} 3',
            'mtls_connections{pod="p",upstream="u"} 3',
            'sent{pod="p",upstream="u"} 1',
            'received{pod="p",upstream="u"} 2',
            'fails{pod="p",upstream="u"} 0',
            'connect_time_count{pod="p",upstream="u"} 3',
            'first_byte_time_count{pod="p",upstream="u"} 0',
            'response_time_sum{pod="p",upstream="u"} 0',
        } do
            assert.is_truthy(text:find("\nnginxplus_stream_upstream_server_" .. line .. "\n", 1, true), line)
        end
    end)

    it("has policies", function()
        local text = text_of(group("ratelimit", 'ratelimit="a/b"', { limited = 2 }), {}, {})
        assert.is_truthy(text:find('\nnginxplus_rate_limited_total{pod="p",ratelimit="a/b"} 2\n', 1, true))
        assert.is_truthy(text:find('\nnginxplus_rate_delayed_total{pod="p",ratelimit="a/b"} 0\n', 1, true))
        text = text_of(group("breaker", 'breaker="a/b"', { trips = 1 }), {}, {})
        assert.is_truthy(text:find('\nnginxplus_circuit_breaker_trips_total{pod="p",breaker="a/b"} 1\n', 1, true))
    end)

    it("leaves out families that have nothing to tell", function()
        local text = text_of({}, {}, {})
        local _, heads = text:gsub("# TYPE", "")
        assert.equal(1, heads)
    end)

    it("writes large numbers with all their digits", function()
        local text = text_of({}, { nginxplus_state_version = { { "", 2 ^ 53 } } }, {})
        assert.is_truthy(text:find('nginxplus_state_version{pod="p"} 9007199254740992\n', 1, true))
    end)

    it("is written in parts, so that requests have their turn", function()
        local values = { nginxplus_state_version = {} }

        for i = 1, 1200 do
            values.nginxplus_state_version[i] = { "", i }
        end

        local text, writes = text_of({}, values, {})
        assert.equal(3, #writes)
        local _, count = text:gsub("\nnginxplus_state_version{", "")
        assert.equal(1200, count)
    end)
end)


describe("the table of families", function()
    local KINDS = { counter = true, gauge = true, histogram = true }
    local by_name = {}

    for _, family in ipairs(families) do
        by_name[family[1]] = family
    end

    it("has complete rows with names of their own", function()
        for _, family in ipairs(families) do
            local name, kind, own, help = unpack(family)
            assert.equal(4, #family)
            assert.is_truthy(name:find("^[a-z][a-z0-9_]+$"), name)
            assert.is_true(KINDS[kind], name)
            assert.is_string(own)
            assert.is_truthy(help:find(".%.$"), name)
            assert.equal(family, by_name[name])
        end
    end)

    it("has each family of groups, and nothing of endpoints that nobody writes", function()
        for name in pairs(groups.FAMILIES) do
            assert.is_not_nil(by_name[name], name)
        end

        for name, family in pairs(by_name) do
            if family[3]:find("endpoint") then
                assert.is_not_nil(groups.FAMILIES[name], name)
            end
        end
    end)
end)
