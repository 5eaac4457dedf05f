require "standins"
local ratelimit = require "mesh.ratelimit"


describe("the RateLimit of a limit", function()
    for limit, name in pairs {
        ["shop/slow"] = "shop/slow",
        ["shop/slow/0"] = "shop/slow",
        ["shop/slow/others/1"] = "shop/slow",
        ["slow"] = "slow",
    } do
        it("is named by the first two parts of " .. limit, function()
            assert.equal(name, ratelimit.name_of(limit))
        end)
    end
end)
