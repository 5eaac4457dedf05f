-- The control socket. Who may open it decides what this pod trusts: only the node's agent can reach it.

local cjson = require "cjson.safe"
local state = require "mesh.state"

local _M = {}


local function answer(status, body)
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.print(cjson.encode(body))
end


local function put()
    ngx.req.read_body()

    -- in memory, whatever its size: a private key is in it (nginx.conf: client_body_buffer_size)
    local body = ngx.req.get_body_data()

    if not body then
        return answer(400, { error = "the request has no body" })
    end

    local update, err = cjson.decode(body)

    if type(update) ~= "table" then
        return answer(400, { error = "not a JSON object: " .. tostring(err or type(update)) })
    end

    answer(state.apply(update))
end


function _M.state()
    local method = ngx.req.get_method()

    if method == "PUT" then
        return put()
    end

    if method == "GET" then
        return answer(200, { version = state.version() })
    end

    answer(405, { error = "GET or PUT" })
end


return _M
