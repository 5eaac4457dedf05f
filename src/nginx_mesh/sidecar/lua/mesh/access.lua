-- Access rules of an inbound port: which caller may do what.

local re_find = ngx.re.find
local ipairs, pairs = ipairs, pairs

local _M = {}


local function method_matches(methods, method)
    if not methods or #methods == 0 then
        return true
    end

    for _, m in ipairs(methods) do
        if m == method or m == "*" then
            return true
        end
    end

    return false
end


local function headers_match(headers)
    if not headers then
        return true
    end

    local sent

    for name, regex in pairs(headers) do
        sent = sent or ngx.req.get_headers(0)

        local value = sent[name]
        if type(value) == "table" then
            value = table.concat(value, ",")
        end

        if not value or not re_find(value, regex, "jo") then
            return false
        end
    end

    return true
end


-- Whether any of the matches holds for the request; an empty list holds for all.
function _M.matches(matches)
    if not matches or #matches == 0 then
        return true
    end

    local path, method = ngx.var.uri, ngx.req.get_method()

    for _, match in ipairs(matches) do
        if method_matches(match.methods, method)
            and (not match.path_regex or re_find(path, match.path_regex, "jo"))
            and headers_match(match.headers)
        then
            return true
        end
    end

    return false
end


function _M.names(sources, peer)
    for _, source in ipairs(sources) do
        if source == peer then
            return true
        end
    end

    return false
end


-- `grants`: nil or JSON null when everybody may do everything. `peer`: the proved SPIFFE ID or nil.
function _M.allowed(grants, peer)
    if not grants or grants == ngx.null then
        return true
    end

    if not peer then
        return false
    end

    for _, grant in ipairs(grants) do
        if _M.names(grant.sources, peer) and _M.matches(grant.matches) then
            return true
        end
    end

    return false
end


return _M
