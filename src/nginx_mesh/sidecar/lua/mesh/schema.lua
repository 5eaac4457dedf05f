-- The shapes of src/nginx_mesh/protocol/state.py, checked before anything is stored. A check returns nil or the reason.

local cjson = require "cjson"
local engine = require "mesh.engine"

local null = cjson.null
local pairs, type = pairs, type

local _M = {}


local function one_of(...)
    local allowed, list = {}, { ... }

    for _, v in ipairs(list) do
        allowed[v] = true
    end

    return function(value)
        if type(value) ~= "string" or not allowed[value] then
            return "must be one of " .. table.concat(list, ", ")
        end
    end
end


local function text(value)
    if type(value) ~= "string" then
        return "must be a string"
    end
end


local function boolean(value)
    if type(value) ~= "boolean" then
        return "must be true or false"
    end
end


local function integer(low, high)
    return function(value)
        if type(value) ~= "number" or value % 1 ~= 0 or value < low or value > high then
            return "must be a whole number from " .. low .. " to " .. high
        end
    end
end


local function ratio(value)
    if type(value) ~= "number" or not (value >= 0 and value <= 1) then
        return "must be a number from 0 to 1"
    end
end


local function list(of)
    return function(value)
        if type(value) ~= "table" then
            return "must be a list"
        end

        local n = 0
        for _ in pairs(value) do
            n = n + 1
        end

        if n ~= #value then
            return "must be a list"
        end

        for i = 1, n do
            local reason = of(value[i])
            if reason then
                return "[" .. (i - 1) .. "]: " .. reason
            end
        end
    end
end


local function map(key_check, value_check)
    return function(value)
        if type(value) ~= "table" then
            return "must be an object"
        end

        for k, v in pairs(value) do
            local reason = key_check(k) or value_check(v)
            if reason then
                return '"' .. tostring(k) .. '": ' .. reason
            end
        end
    end
end


local function nullable(of)
    return function(value)
        if value ~= null then
            return of(value)
        end
    end
end


-- `optional` fields may be absent; fields that neither names are refused.
local function struct(required, optional)
    return function(value)
        if type(value) ~= "table" then
            return "must be an object"
        end

        for name in pairs(required) do
            if value[name] == nil then
                return "lacks " .. name
            end
        end

        for name, v in pairs(value) do
            local of = required[name] or optional[name]
            if not of then
                return "has an unknown field " .. tostring(name)
            end

            local reason = of(v)
            if reason then
                return name .. " " .. reason
            end
        end
    end
end


local function address(value)
    if type(value) ~= "string" or not engine.is_address(value) then
        return "is not an address and port"
    end
end


local function ip(value)
    if type(value) ~= "string" or not engine.is_address((value:find(":") and "[" .. value .. "]" or value) .. ":1") then
        return "is not an IP address"
    end
end


local function trust_domain(value)
    if type(value) ~= "string" or #value > 255 or not value:find("^[a-z0-9._-]+$") then
        return "is not a trust domain"
    end
end


local function lb_method(value)
    if type(value) ~= "string" or not engine.LB_METHODS[value] then
        return "is not a load balancing method"
    end
end


-- A pattern that does not compile matches nothing (ngx_mesh_rules.c): one bad object must not freeze the pod's state.
local matches = list(struct({}, {
    path_regex = text,
    methods = list(text),
    headers = map(text, text),
}))

local protocol = one_of("http", "grpc", "tcp")

local endpoint = struct({ tls = boolean }, { spiffe_id = text, labels = map(text, text) })


local function endpoint_proves(value)
    local reason = endpoint(value)
    if reason then
        return reason
    end

    if value.tls and (value.spiffe_id or "") == "" then
        return "lacks the spiffe_id that mTLS needs"
    end
end


_M.endpoint = endpoint_proves

local SINGLE = {
    settings = struct({
        mtls_mode = one_of("off", "permissive", "strict"),
        trust_domain = text,
        client_max_body_size = integer(0, 2 ^ 53),
        log_level = one_of("debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"),
        log_format = one_of("default", "json"),
        addresses = list(text),
        labels = map(text, text),
    }, { sampler_ratio = nullable(ratio) }),

    identity = struct({ spiffe_id = text, svid = text, key = text, bundle = text }, {
        federated = map(trust_domain, text),
    }),
}

local KEYED = {
    inbound = {
        key = function(value)
            local number = tonumber(value)
            if not value:find("^[1-9]%d*$") or number > 65535 then
                return "is not a port"
            end
        end,
        value = struct({ protocols = list(protocol) }, {
            grants = nullable(list(struct({ target = text, sources = list(text) }, {
                matches = matches,
                tcp = boolean,
            }))),
            limits = list(struct({ name = text, rate = integer(1, 2 ^ 53) }, {
                burst = integer(0, 2 ^ 31),
                delay = integer(-1, 2 ^ 31),
                sources = list(text),
                addresses = list(ip),
                matches = matches,
            })),
        }),
    },

    destination = { key = address, value = struct({ protocol = protocol, cluster = text }, { service = text }) },

    cluster = {
        key = text,
        value = struct({ lb_method = lb_method, endpoints = map(address, endpoint_proves) }, {}),
    },

    split = {
        key = text,
        value = struct({
            split = text,
            backends = list(struct({ cluster = text, weight = integer(0, 2 ^ 31) }, {})),
        }, { matches = matches }),
    },

    breaker = {
        key = text,
        value = struct({ breaker = text, errors = integer(1, 10000), timeout_ms = integer(1000, 2 ^ 31) }, {
            fallback = text,
        }),
    },

    probe = {
        key = function(value)
            if value:sub(1, 1) ~= "/" then
                return "is not a path"
            end
        end,
        value = struct({ scheme = one_of("http", "https", "tcp"), port = integer(1, 65535) }, {
            path = text,
            host = text,
            headers = map(text, text),
        }),
    },
}


-- "inbound/80" -> "inbound", "80"; "settings" -> "settings", nil.
function _M.split(key)
    local slash = key:find("/", 1, true)

    if not slash then
        return key, nil
    end

    return key:sub(1, slash - 1), key:sub(slash + 1)
end


function _M.check_key(key)
    if type(key) ~= "string" then
        return "is not a key"
    end

    if SINGLE[key] then
        return nil
    end

    local kind, name = _M.split(key)

    if not KEYED[kind] or not name or name == "" then
        return "is not a key of the state"
    end

    return KEYED[kind].key(name)
end


function _M.check_entry(key, value)
    local reason = _M.check_key(key)
    if reason then
        return reason
    end

    local kind = _M.split(key)

    return (SINGLE[kind] or KEYED[kind].value)(value)
end


local shape = struct({ base = nullable(integer(1, 2 ^ 53)), version = integer(1, 2 ^ 53) }, {
    set = map(text, function() end),
    delete = list(text),
    endpoints = map(text, map(address, nullable(endpoint_proves))),
})


-- The shape of an update; its entries are checked one by one (check_entry).
function _M.check_update(update)
    return shape(update)
end


-- What to report to the node: requests that all of it is true of. 0 seconds end it.
_M.check_tap = struct({ seconds = integer(0, 60), max_rps = integer(1, 1000) }, {
    method = text,
    path = text,
    lowest = integer(0, 999),
    highest = integer(0, 999),
    peers = list(ip),
})


return _M
