-- Makes the sidecar's Lua modules loadable without nginx. What is pure runs as it is; stand-ins are only what nginx and
-- the C module would bring, as small as the tests need. LUA_ROOT is the folder with the modules.

local ffi = require "ffi"

package.path = os.getenv("LUA_ROOT") .. "/?.lua;" .. package.path

ffi.cdef [[
int inet_pton(int family, const char *text, void *address);
]]

local AF_INET, AF_INET6 = 2, 10
local parsed = ffi.new "uint8_t[16]"


-- As the C module: an IPv4 address, or an IPv6 address in brackets, and a port.
package.loaded["mesh.native.address"] = {
    is_address = function(text)
        local ip, port = text:match("^%[(.*)%]:(%d+)$")
        local family = AF_INET6

        if not ip then
            ip, port = text:match("^([^:]*):(%d+)$")
            family = AF_INET
        end

        if not ip or ffi.C.inet_pton(family, ip, parsed) ~= 1 then
            return false
        end

        return tonumber(port) >= 1 and tonumber(port) <= 65535
    end,
}


-- A shared dictionary with room for `capacity` keys.
local Dictionary = {}
Dictionary.__index = Dictionary


local function dictionary(capacity)
    return setmetatable({ capacity = capacity or math.huge, values = {}, n = 0 }, Dictionary)
end


function Dictionary:get(key)
    return self.values[key]
end


function Dictionary:delete(key)
    self.n = self.n - (self.values[key] ~= nil and 1 or 0)
    self.values[key] = nil
end


function Dictionary:safe_set(key, value)
    if self.values[key] == nil then
        if self.n >= self.capacity then
            return nil, "no memory"
        end

        self.n = self.n + 1
    end

    self.values[key] = value
    return true
end


function Dictionary:safe_add(key, value)
    if self.values[key] ~= nil then
        return false, "exists"
    end

    return self:safe_set(key, value)
end


function Dictionary:incr(key, by)
    if self.values[key] == nil then
        return nil, "not found"
    end

    self.values[key] = self.values[key] + by
    return self.values[key]
end


function Dictionary:get_keys()
    local keys = {}

    for key in pairs(self.values) do
        keys[#keys + 1] = key
    end

    return keys
end


-- Loads a module anew, as another worker would, with the shared memory of this test.
local function load_anew(name)
    package.loaded[name] = nil

    return require(name)
end


_G.ngx = {
    ERR = 4,
    shared = {},
    log = function() end,
    sleep = function() end,
}

return { dictionary = dictionary, load_anew = load_anew }
