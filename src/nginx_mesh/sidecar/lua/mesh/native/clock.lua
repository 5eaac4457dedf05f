-- The clock of the C module.

local ffi = require "ffi"

require "mesh.cdefs"

local C = ffi.C

local _M = {}


-- Seconds, by a monotonic clock that changes of the system's time do not move.
function _M.now()
    return tonumber(C.ngx_mesh_now_us()) / 1e6
end


return _M
