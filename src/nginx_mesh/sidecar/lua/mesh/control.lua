-- The control socket. Who may open it decides what this pod trusts: only the node's agent can reach it.

local cjson = require "cjson.safe"
local engine = require "mesh.engine"
local schema = require "mesh.schema"
local state = require "mesh.state"

local _M = {}


local function answer(status, body)
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.print(cjson.encode(body))
end


-- The JSON object that the request has; or nil, having answered why not.
local function document()
    ngx.req.read_body()

    -- in memory, whatever its size: a private key is in it (nginx.conf: client_body_buffer_size)
    local body = ngx.req.get_body_data()

    if not body then
        answer(400, { error = "the request has no body" })
        return nil
    end

    local found, err = cjson.decode(body)

    if type(found) ~= "table" then
        answer(400, { error = "not a JSON object: " .. tostring(err or type(found)) })
        return nil
    end

    return found
end


local function put()
    local update = document()

    if update then
        answer(state.apply(update))
    end
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


-- Somebody watches requests, for some seconds. It is this worker's: there is one, and a new one is told again soon.
function _M.tap()
    if ngx.req.get_method() ~= "PUT" then
        return answer(405, { error = "PUT" })
    end

    local tap = document()

    if tap then
        local reason = schema.check_tap(tap)

        if reason then
            return answer(400, { error = "tap " .. reason })
        end

        engine.tap(tap)
        answer(200, {})
    end
end


return _M
