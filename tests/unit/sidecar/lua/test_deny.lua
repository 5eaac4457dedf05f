local standins = require "standins"

local refused, said, request

package.loaded["mesh.native.request"] = { refused = function(reason) refused = reason end }

ngx.var = {}
ngx.header = {}
ngx.exit = function(status) return "exit " .. status end
ngx.say = function(...) said = table.concat { ... } end
ngx.send_headers = function() request.headers_sent = true end

local deny = standins.load_anew "mesh.deny"
local grpc_codes = require "mesh.grpc_codes"


local function answer(content_type, ...)
    refused, said, request = nil, nil, {}
    ngx.var.http_content_type, ngx.header, ngx.status = content_type, {}, nil

    return deny(...)
end


describe("a refusal", function()
    it("is a status and a line of text for HTTP", function()
        assert.equal("exit 403", answer(nil, 403, "access denied"))
        assert.equal(403, ngx.status)
        assert.equal("text/plain", ngx.header["Content-Type"])
        assert.equal("nginx-mesh: access denied", said)
        assert.equal("access denied", refused)
    end)

    for content_type, is_grpc in pairs {
        ["application/grpc"] = true, ["application/grpc+proto"] = true, ["application/json"] = false,
    } do
        it("has the form of the protocol that " .. content_type .. " names", function()
            answer(content_type, 403, "access denied")
            assert.equal(is_grpc and 200 or 403, ngx.status)
        end)
    end

    it("is a gRPC status in the header frame, without a body", function()
        assert.equal("exit 200", answer("application/grpc", 503, "no service has this address"))
        assert.same({
            ["Content-Type"] = "application/grpc", ["Content-Length"] = 0, ["grpc-status"] = 14,
            ["grpc-message"] = "no service has this address",
        }, ngx.header)
        assert.is_true(request.headers_sent)
        assert.is_nil(said)
    end)

    it("may have another gRPC status than its HTTP status has", function()
        answer("application/grpc", 503, "rate limit exceeded", 8)
        assert.equal(8, ngx.header["grpc-status"])
    end)
end)


describe("a gRPC status", function()
    -- https://grpc.github.io/grpc/core/md_doc_statuscodes.html
    for status, code in pairs { [400] = 16, [403] = 7, [413] = 8, [503] = 14 } do
        it("goes with the HTTP status " .. status, function()
            assert.equal(code, grpc_codes[status])
        end)
    end
end)
