-- Checks of strings. Each returns nil, or the reason why the string is not what it should be.

local native_address = require "mesh.native.address"

local _M = {}


function _M.text()
    return nil
end


-- "ip:port", with an IPv6 address in brackets.
function _M.address(value)
    if not native_address.is_address(value) then
        return "is not an address and port"
    end
end


function _M.ip(value)
    if not native_address.is_address((value:find(":") and "[" .. value .. "]" or value) .. ":1") then
        return "is not an IP address"
    end
end


function _M.trust_domain(value)
    if #value > 255 or not value:find("^[a-z0-9._-]+$") then
        return "is not a trust domain"
    end
end


function _M.port(value)
    if not value:find("^[1-9]%d*$") or tonumber(value) > 65535 then
        return "is not a port"
    end
end


function _M.path(value)
    if value:sub(1, 1) ~= "/" then
        return "is not a path"
    end
end


return _M
