-- Converts results and strings of the C module into Lua's.

local ffi = require "ffi"

require "mesh.cdefs"

local ffi_string = ffi.string

local _M = {
    OK = 0,                                             -- NGX_OK
}


-- Raises an error when a function of the module that returns ngx_int_t did not return NGX_OK: these fail only when
-- there is no memory.
function _M.check(rc)
    if rc ~= _M.OK then
        error("out of memory", 2)
    end
end


-- Returns the pointer. Raises an error when it is NULL, as there was no memory for what it should point to.
function _M.allocated(pointer)
    if pointer == nil then
        error("out of memory", 2)
    end

    return pointer
end


-- The text of an ngx_mesh_ffi_str_t as a Lua string.
function _M.to_string(from)
    return ffi_string(from.data, from.len)
end


-- Lets an ngx_mesh_ffi_str_t point to the bytes of a Lua string. The caller keeps the string alive.
function _M.set_string(to, text)
    to.len = #text
    to.data = text
end


return _M
