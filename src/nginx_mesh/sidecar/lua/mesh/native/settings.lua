-- Puts the settings of the sidecar into the C module.

local ffi = require "ffi"
local values = require "mesh.values"

require "mesh.cdefs"

local C = ffi.C

local _M = {}


-- `settings` is the entry of the state.
function _M.put(settings)
    C.ngx_mesh_ffi_settings(values.MTLS_MODES[settings.mtls_mode], settings.log_format == "json" and 1 or 0,
                            values.LOG_LEVELS[settings.log_level], settings.client_max_body_size)
end


return _M
