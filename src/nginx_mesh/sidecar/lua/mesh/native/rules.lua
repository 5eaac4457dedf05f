-- Puts the HTTP matches of the state into rules of the C module.

local ffi = require "ffi"
local convert = require "mesh.native.convert"

local C = ffi.C
local check = convert.check

local _M = {}


-- Adds `matches`, a list as in the state or nil, to a rule of the module.
function _M.fill(rule, matches)
    convert.allocated(rule)

    for _, match in ipairs(matches or {}) do
        local path = match.path_regex or ""
        check(C.ngx_mesh_ffi_rule_match(rule, path, #path))

        for _, method in ipairs(match.methods or {}) do
            check(C.ngx_mesh_ffi_rule_method(rule, method, #method))
        end

        for name, regex in pairs(match.headers or {}) do
            check(C.ngx_mesh_ffi_rule_header(rule, name, #name, regex, #regex))
        end
    end
end


return _M
