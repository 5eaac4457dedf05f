local standins = require "standins"

local now

package.loaded["mesh.native.clock"] = { now = function() return now end }


-- The counters of a worker, in new shared memory or in that of another worker.
local function worker(capacity)
    if capacity ~= "shared" then
        now = 1000
        ngx.shared.mesh_metrics = standins.dictionary(capacity)
    end

    local series = standins.load_anew "mesh.series"
    series.start { "dropped", "2xx" }

    return series
end


local function nothing() end


-- Labels of groups and their counters, by kind.
local function found(series)
    local out = {}

    for kind, groups in pairs(series.groups(nothing)) do
        out[kind] = {}

        for _, group in ipairs(groups) do
            out[kind][group.labels] = group.counters
        end
    end

    return out
end


describe("counters", function()
    it("add up, in groups and in totals", function()
        local series = worker()
        local group = series.group("http", "shop/web:80", "10.0.0.1:80", 'a="1"')
        series.add(group, { sent = 5, fails = 0 })
        series.add(group, { sent = 2, ["200:1"] = 1 })
        series.add_total("2xx", 3)
        series.add_total("2xx", 1)
        assert.same({ http = { ['a="1"'] = { sent = 7, ["200:1"] = 1 } } }, found(series))
        assert.equal(4, series.total("2xx"))
        assert.equal(0, series.total("unknown"))
    end)

    it("are taken from the caller, so that they are not added twice", function()
        local series = worker()
        local counters = { sent = 5 }
        series.add(series.group("http", "a", "b", ""), counters)
        assert.same({ sent = 0 }, counters)
    end)

    it("are those of all workers", function()
        local one = worker()
        local two = worker "shared"
        local group = one.group("tcp", "a", "b", 'x="y"')
        one.add(group, { sent = 1 })
        two.add(group, { sent = 2 })
        assert.same({ tcp = { ['x="y"'] = { sent = 3 } } }, found(one))
    end)

    it("are exposed in the order of their labels", function()
        local series = worker()

        for _, own in ipairs { "c", "a", "b" } do
            series.add(series.group("http", own, "", own), { sent = 1 })
        end

        local order = {}

        for i, group in ipairs(series.groups(nothing).http) do
            order[i] = group.labels
        end

        assert.same({ "a", "b", "c" }, order)
    end)

    it("are all read when they are many, and requests have their turn in between", function()
        local series = worker()

        for i = 1, 250 do
            series.add(series.group("http", "shop/web:80", "", "n" .. i), { sent = i })
        end

        local turns = spy.on(ngx, "sleep")
        local counters, swept = found(series).http, 0
        assert.spy(turns).was_called(2)

        for i = 1, 250 do
            assert.same({ sent = i }, counters["n" .. i])
        end

        series.sweep(function()
            swept = swept + 1
            return true
        end)

        assert.equal(250, swept)
        assert.spy(turns).was_called(4)
        turns:revert()
    end)
end)


describe("a group whose subject is gone", function()
    local function sweep(series, present)
        series.sweep(function(_, kind, subject, member)
            assert.same({ "http", "10.0.0.1:80" }, { kind, member })
            return present[subject]
        end)
    end

    it("is removed when it has not counted for long, and comes back from zero", function()
        local one = worker()
        local two = worker "shared"
        local gone = one.group("http", "gone", "10.0.0.1:80", "gone")
        local kept = one.group("http", "kept", "10.0.0.1:80", "kept")
        one.add(gone, { sent = 1 })
        two.add(gone, { sent = 1 })
        one.add(kept, { sent = 1 })
        sweep(one, { kept = true })
        now = now + one.GONE_AFTER - 1
        sweep(one, { kept = true })
        assert.same({ gone = { sent = 2 }, kept = { sent = 1 } }, found(one).http)
        now = now + 1
        sweep(one, { kept = true })
        assert.same({ kept = { sent = 1 } }, found(one).http)
        two.add(gone, { sent = 4 })
        assert.same({ gone = { sent = 4 }, kept = { sent = 1 } }, found(one).http)
        assert.equal(0, one.total("dropped"))
    end)

    it("stays as long as it counts, or when its subject comes back", function()
        local series = worker()
        local group = series.group("http", "gone", "10.0.0.1:80", "gone")
        series.add(group, { sent = 1 })
        sweep(series, {})
        now = now + series.GONE_AFTER - 1
        series.add(group, { sent = 1 })
        now = now + 1
        sweep(series, {})
        assert.same({ gone = { sent = 2 } }, found(series).http)
        sweep(series, { gone = true })
        now = now + 2 * series.GONE_AFTER
        sweep(series, {})
        assert.same({ gone = { sent = 2 } }, found(series).http)
    end)
end)


describe("when memory is full", function()
    local BASE = 4                                      -- next, generation and two totals
    local GROUP = 4                                     -- name, number, time and one counter

    it("the group that has not counted for the longest time makes room, and is counted", function()
        local series = worker(BASE + 2 * GROUP)

        for _, name in ipairs { "old", "older" } do
            now = name == "old" and 1010 or 1000
            series.add(series.group("http", name, "", name), { sent = 1 })
        end

        now = 1020
        series.add(series.group("http", "new", "", "new"), { sent = 1 })
        assert.same({ old = { sent = 1 }, new = { sent = 1 } }, found(series).http)
        assert.equal(1, series.total("dropped"))
    end)

    it("no group that counts makes room: the new one is dropped and counted", function()
        local series = worker(BASE + GROUP)
        series.add(series.group("http", "busy", "", "busy"), { sent = 1 })
        series.add(series.group("http", "new", "", "new"), { sent = 1 })
        assert.same({ busy = { sent = 1 } }, found(series).http)
        assert.equal(1, series.total("dropped"))
    end)

    it("totals are counted all the same", function()
        local series = worker(BASE)
        series.add(series.group("http", "new", "", "new"), { sent = 1 })
        series.add_total("2xx", 1)
        assert.equal(1, series.total("2xx"))
    end)
end)
