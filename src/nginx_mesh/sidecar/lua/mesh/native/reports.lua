-- Says which requests the C module reports to the node: those that are sampled for tracing, and those that somebody
-- watches with `nginx-meshctl tap`.

local ffi = require "ffi"
local convert = require "mesh.native.convert"

local C = ffi.C

local _M = {}


-- `ratio` is the share of new traces that are sampled; nil means that trace headers are left as they are.
function _M.sample(ratio)
    C.ngx_mesh_ffi_tracing(ratio or -1)
end


-- Reports requests to the node for some seconds. `tap` has the shape that schema.check_tap() accepts.
function _M.tap(tap)
    local peers = tap.peers and #tap.peers > 0 and "\n" .. table.concat(tap.peers, "\n") .. "\n" or ""
    local method, path = tap.method or "", tap.path or ""

    convert.check(C.ngx_mesh_ffi_tap(tap.seconds * 1000, tap.max_rps, tap.lowest or 0, tap.highest or 999,
                                     method, #method, path, #path, peers, #peers))
end


-- The number of reports since the last call that the node did not take.
function _M.take_dropped()
    return tonumber(C.ngx_mesh_ffi_reports_dropped_take())
end


return _M
