-- Puts traffic splits into the C module.

local ffi = require "ffi"
local convert = require "mesh.native.convert"
local rules = require "mesh.native.rules"

local C = ffi.C

local _M = {}


-- `split` is the entry of the state.
function _M.put(service, split)
    local new = convert.allocated(C.ngx_mesh_ffi_split_new(service, #service))

    for _, backend in ipairs(split.backends) do
        convert.check(C.ngx_mesh_ffi_split_backend(new, backend.cluster, #backend.cluster, backend.weight))
    end

    rules.fill(C.ngx_mesh_ffi_split_rule(new), split.matches)
    C.ngx_mesh_ffi_split_put(new)
end


function _M.delete(service)
    C.ngx_mesh_ffi_split_delete(service, #service)
end


return _M
