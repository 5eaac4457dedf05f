local standins = require "standins"

local store


local function start(capacity)
    ngx.shared.mesh_state = standins.dictionary(capacity)
    store = standins.load_anew "mesh.state.store"
    store.start()
end


local function sorted_keys()
    local keys = store.keys()
    table.sort(keys)
    return keys
end


describe("the state in shared memory", function()
    it("has version 0 and no entries at first", function()
        start()
        assert.equal(0, store.version())
        assert.same({}, store.keys())
    end)

    it("has its entries for keys, not what is kept beside them", function()
        start()
        assert.is_true(store.write { settings = "{}", ["cluster/a"] = "1" })
        ngx.shared.mesh_state:safe_set("@sequence", 4)
        store.set_version(7)
        assert.same({ "cluster/a", "settings" }, sorted_keys())
        assert.equal("1", store.get("cluster/a"))
        assert.equal(7, store.version())
    end)

    it("is changed by what is written, false deletes", function()
        start()
        store.write { a = "1", b = "2" }
        assert.is_true(store.write { a = false, c = "3", absent = false })
        assert.same({ "b", "c" }, sorted_keys())
    end)

    it("gives new entries the room of those that they replace", function()
        start(3)                                        -- the version takes one
        store.write { a = "1", b = "2" }
        assert.is_true(store.write { a = false, b = false, c = "3", d = "4" })
        assert.same({ "c", "d" }, sorted_keys())
    end)

    it("stays as it was when the changes do not fit", function()
        start(3)
        store.write { a = "1", b = "2" }
        store.set_version(5)
        local ok, err = store.write { a = "9", c = "3", d = "4" }
        assert.same({ nil, "no memory" }, { ok, err })
        assert.same({ "a", "b" }, sorted_keys())
        assert.equal("1", store.get("a"))
        assert.equal(5, store.version())
    end)

    it("has version 0 when it could not be put back", function()
        start(3)
        store.write { a = "1", b = "2" }
        store.set_version(5)
        local dictionary = ngx.shared.mesh_state
        local delete = dictionary.delete
        function dictionary:delete(key)
            delete(self, key)
            self.capacity = 1
        end
        assert.is_nil(store.write { a = "9", c = "3" })
        assert.equal(0, store.version())
    end)
end)
