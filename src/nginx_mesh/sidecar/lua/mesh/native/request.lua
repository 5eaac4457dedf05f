-- Asks and tells the C module about the request at hand.

local ffi = require "ffi"
local base = require "resty.core.base"
local convert = require "mesh.native.convert"

local C = ffi.C
local ffi_string = ffi.string
local get_request = base.get_request

local data = ffi.new "const char *[1]"
local len = ffi.new "size_t[1]"
local port = ffi.new "uintptr_t[1]"

local _M = {
    -- What ngx_http_mesh_ffi_select() returns: NGX_OK, NGX_DECLINED, NGX_BUSY, NGX_ABORT.
    SELECTED = { [0] = "ok", [-5] = "unknown", [-3] = "empty", [-6] = "open" },
}


-- The address and the port that the caller dialled; nil when the connection was not redirected.
function _M.original()
    local n = C.ngx_http_mesh_ffi_original(get_request(), data, port)

    if n ~= 0 then
        return ffi_string(data[0], n), tonumber(port[0])
    end
end


-- The SPIFFE ID that the caller proved; false when it speaks TLS but proved none; nil when it speaks plaintext.
function _M.peer()
    local rc = C.ngx_http_mesh_ffi_peer(get_request(), data, len)

    if rc == 1 then
        return ffi_string(data[0], len[0])
    end

    if rc == 0 then
        return false
    end
end


-- Removes the headers by which a caller could claim an identity, in all their spellings.
function _M.disown_identity()
    C.ngx_http_mesh_ffi_disown_identity(get_request())
end


-- Chooses where the request goes. Returns "ok"; "unknown" when its cluster is not loaded; "empty" and the cluster that
-- has no endpoint; or "open" and the service whose circuit is open and has no fallback.
function _M.select()
    local rc = tonumber(C.ngx_http_mesh_ffi_select(get_request(), data, len))
    local selected = _M.SELECTED[rc] or error("out of memory")

    if selected == "empty" or selected == "open" then
        return selected, ffi_string(data[0], len[0])
    end

    return selected
end


-- Sends the request to a port of the pod itself.
function _M.forward(number)
    convert.check(C.ngx_http_mesh_ffi_forward(get_request(), number))
end


-- Whether the body may be that long, as far as its length is announced. A body of unknown length is counted as it
-- comes.
function _M.limit_body(bytes)
    return C.ngx_http_mesh_ffi_body_limit(get_request(), bytes) == convert.OK
end


-- Whether access rules allow the request.
function _M.allowed()
    return C.ngx_http_mesh_ffi_allowed(get_request()) ~= 0
end


-- The name of the grant by which access rules allowed the request; nil when none was needed, or none allowed it.
function _M.granted()
    local n = C.ngx_http_mesh_ffi_granted(get_request(), data)

    if n ~= 0 then
        return ffi_string(data[0], n)
    end
end


-- The milliseconds that rate limits make the request wait; nil when it is over a limit. Unless it passes at once, the
-- name of the RateLimit follows.
function _M.limit()
    local wait = tonumber(C.ngx_http_mesh_ffi_limit(get_request(), data, len))

    if wait == 0 then
        return 0
    end

    return wait > 0 and wait or nil, ffi_string(data[0], len[0])
end


-- Tells those to whom the request is reported why it is refused.
function _M.refused(reason)
    C.ngx_http_mesh_ffi_refused(get_request(), reason, #reason)
end


return _M
