-- The control socket. Whoever may open it decides what this pod trusts: only the node's agent can reach it.

local cjson = require "cjson.safe"
local native_reports = require "mesh.native.reports"
local schema = require "mesh.schema"
local state = require "mesh.state"

local _M = {}


local function answer(status, body)
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.print(cjson.encode(body))
end


-- The JSON object in the body of the request. Returns nil after it has answered that there is none.
local function document()
    ngx.req.read_body()

    -- The body is in memory whatever its size, as it has a private key (nginx.conf: client_body_buffer_size).
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


-- /v1/state: gives the version of the state, or applies an update.
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


-- /v1/tap: reports requests to somebody who watches them for some seconds. Only the worker that answers hears of it: a
-- sidecar has one, and the node repeats the request while somebody watches.
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

        native_reports.tap(tap)
        answer(200, {})
    end
end


return _M
