local standins = require "standins"

local current, timers


-- A worker with its own copy of the module, which remembers what it loaded.
local function worker(id)
    local self = { loaded = {} }
    current = id
    self.module = standins.load_anew "mesh.state.workers"

    function self.run(name, ...)
        current = id
        return self.module[name](...)
    end

    function self.tick()
        current = id
        self.timer(false)
    end

    self.run("start", function() self.loaded[#self.loaded + 1] = "all" end, function(keys)
        self.loaded[#self.loaded + 1] = table.concat(keys, " ")
    end)
    self.timer = timers[#timers]

    return self
end


local function start(count)
    current, timers = 0, {}
    ngx.shared.mesh_state = standins.dictionary()
    ngx.worker = { id = function() return current end, count = function() return count end }
    ngx.timer = { every = function(_, handler)
        timers[#timers + 1] = handler
        return true
    end }
end


describe("workers", function()
    it("load what another has stored, update by update", function()
        start(2)
        local one, two = worker(0), worker(1)
        one.run("publish", { "settings", "cluster/a" })
        one.run("publish", { "cluster/b" })
        two.tick()
        two.tick()
        assert.same({ "all", "settings cluster/a", "cluster/b" }, two.loaded)
        assert.same({ "all" }, one.loaded)
    end)

    it("load everything when they missed what was touched", function()
        start(2)
        local one, two = worker(0), worker(1)
        one.run("publish", { "cluster/a" })
        ngx.shared.mesh_state:delete("@touched:1")
        one.run("publish", { "cluster/b" })
        two.tick()
        assert.same({ "all", "all" }, two.loaded)
        two.tick()
        assert.same({ "all", "all" }, two.loaded)
    end)

    it("wait for each other", function()
        start(2)
        local one, two = worker(0), worker(1)
        one.run("publish", { "cluster/a" })
        assert.is_false(one.run("wait"))
        two.tick()
        current = 0
        assert.is_true(one.run("wait"))
    end)

    it("take up where a predecessor was", function()
        start(2)
        local one = worker(0)
        worker(1)
        one.run("publish", { "cluster/a" })
        local successor = worker(1)
        successor.tick()
        assert.same({ "all" }, successor.loaded)
        assert.is_true(one.run("wait"))
    end)

    it("do not wait for nobody", function()
        start(1)
        local only = worker(0)
        only.run("publish", { "cluster/a" })
        assert.is_true(only.run("wait"))
        assert.same({}, timers)
    end)
end)
