-- Tells which texts the C module can read as an address and a port.

local ffi = require "ffi"
local convert = require "mesh.native.convert"

local C = ffi.C

local _M = {}


-- Whether the text is "ip:port", with an IPv6 address in brackets.
function _M.is_address(address)
    return C.ngx_mesh_ffi_address_check(address, #address) == convert.OK
end


return _M
