-- Access rules of an inbound port: which caller may do what.

local re_find = ngx.re.find
local find = string.find
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


-- Segments that are "." or ".." once decoded and cut at ";", encoded slashes, backslashes.
local AMBIGUOUS = [[^[^?]*(?:/(?:\.|%2e){1,2}(?:[/;?]|$)|%2f|%5c|\\)]]


-- The path goes to the application as it was sent. What it means when it must be normalised first is not for us to
-- guess: applications differ, and one may take /public/..;/admin for what another takes it not.
local function is_ambiguous(sent)
    return (find(sent, "/.", 1, true) or find(sent, "%", 1, true) or find(sent, "\\", 1, true))
        and re_find(sent, AMBIGUOUS, "ijo") ~= nil
end


-- Whether any of the matches holds for the request; an empty list holds for all. `ambiguous`: what is said of the path
-- when applications may take it for one or another.
function _M.matches(matches, ambiguous)
    if not matches or #matches == 0 then
        return true
    end

    local path, method = ngx.var.uri, ngx.req.get_method()
    local doubtful

    for _, match in ipairs(matches) do
        if method_matches(match.methods, method) and headers_match(match.headers) then
            if not match.path_regex or match.path_regex == "" then
                return true
            end

            if doubtful == nil then
                doubtful = is_ambiguous(ngx.var.request_uri) or false
            end

            if doubtful and ambiguous or not doubtful and re_find(path, match.path_regex, "jo") then
                return true
            end
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
        if _M.names(grant.sources, peer) and _M.matches(grant.matches, false) then
            return true
        end
    end

    return false
end


return _M
