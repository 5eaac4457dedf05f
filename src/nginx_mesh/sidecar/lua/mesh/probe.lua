-- Health checks. The kubelet asks here, on ports that are not redirected, and the request goes on to the port that the
-- container's own probe is about.

local native_identity = require "mesh.native.identity"
local native_request = require "mesh.native.request"
local state = require "mesh.state"

local _M = {}


-- Answers whether the sidecar is ready: it has a state and can prove who the pod is.
function _M.ready()
    if state.settings() and native_identity.expires() > ngx.time() then
        return ngx.say("ready")
    end

    ngx.status = 503
    ngx.say("no state or no valid identity yet")
end


-- Answers whether a TCP connection to the pod's port can be made.
local function check_tcp(port)
    local socket = ngx.socket.tcp()
    local host = native_request.original():gsub(":%d+$", "")

    -- Connections from this address are not redirected: otherwise the sidecar itself would answer.
    assert(socket:bind(host:byte() == 91 and "::6" or "127.0.0.6"))  -- "["
    socket:settimeouts(10000, 1, 1)

    local ok, err = socket:connect(host, port)

    if not ok then
        ngx.status = 503
        ngx.say(err)
        return ngx.exit(503)
    end

    socket:close()
    ngx.say("open")
    return ngx.exit(200)
end


local function escape_byte(byte)
    return ("%%%02X"):format(byte:byte())
end


-- In the rewrite phase: says where the health check that was asked for goes.
function _M.rewrite()
    local probe = state.probe(ngx.var.uri)

    if not probe then
        return ngx.exit(404)
    end

    if probe.scheme == "tcp" then
        return check_tcp(probe.port)
    end

    -- Anybody can ask here. The application sees the pod's own health check, whatever the client sent.
    local method = ngx.req.get_method()

    if method ~= "GET" and method ~= "HEAD" then
        return ngx.exit(405)
    end

    for name in pairs(ngx.req.get_headers(0, true)) do
        local lower = name:lower()

        if lower ~= "user-agent" and lower ~= "accept" and lower ~= "host" then
            ngx.req.clear_header(name)
        end
    end

    for name, value in pairs(probe.headers or {}) do
        ngx.req.set_header(name, value)
    end

    native_request.forward(probe.port)

    ngx.var.mesh_probe_scheme = probe.scheme
    ngx.var.mesh_probe_target = probe.scheme == "https" and "mesh_probe_tls" or "mesh_probe"
    ngx.var.mesh_probe_uri = (probe.path or "/"):gsub("[%c ]", escape_byte)

    if probe.host and probe.host ~= "" then
        ngx.var.mesh_probe_host = probe.host
    end
end


return _M
