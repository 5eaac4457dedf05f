-- The names of rate limits. Pure.

local _M = {}


-- The name of the RateLimit object ("namespace/name") that a limit of the state was made from. The name of a limit
-- begins with it.
function _M.name_of(limit)
    return limit:match("^[^/]*/[^/]*") or limit
end


return _M
