-- The shapes of the sidecar state as data. They are those of the msgspec Structs of the state's schema in Python, and a
-- test compares the two (tests/unit/sidecar/test_state_schema.py): whoever changes one side changes the other.
--
-- A shape has a `type`, as schema/check.lua knows it. `nullable` says that null is allowed, too. `format` names a check
-- of a string that only Lua makes. `rule` of a struct names a check of its fields together.

local MAX = 2 ^ 53                                      -- the integers up to this are exact in Lua
local MAX_32 = 2 ^ 31

local text = { type = "string" }
local boolean = { type = "boolean" }
local texts = { type = "list", items = text }
local text_map = { type = "map", values = text }


local function enum(...)
    return { type = "string", enum = { ... } }
end


local function integer(low, high)
    return { type = "integer", low = low, high = high }
end


local function list(items)
    return { type = "list", items = items }
end


-- A map with keys of any text, or of a format.
local function map(values, key_format)
    return { type = "map", values = values, key_format = key_format }
end


-- `optional` fields may be absent. Fields that neither names are refused.
local function struct(required, optional)
    return { type = "struct", required = required, optional = optional or {} }
end


-- The same shape, or null.
local function nullable(shape)
    local copy = { nullable = true }

    for name, value in pairs(shape) do
        copy[name] = value
    end

    return copy
end


local lb_method = enum("round_robin", "least_conn", "least_time", "least_time last_byte",
                       "least_time last_byte inflight", "random", "random two", "random two least_conn",
                       "random two least_time", "random two least_time=last_byte")

local protocol = enum("http", "grpc", "tcp")

-- A pattern that does not compile matches nothing (ngx_mesh_rules.c): one bad object must not freeze the pod's state.
local path_rule = struct({}, { path_regex = text, methods = texts, headers = text_map })

local grant = struct({ target = text, sources = texts }, { matches = list(path_rule), tcp = boolean })

local limit = struct({ name = text, rate = integer(1, MAX) }, {
    burst = integer(0, MAX_32),
    delay = integer(-1, MAX_32),
    sources = texts,
    addresses = list { type = "string", format = "ip" },
    matches = list(path_rule),
})

local endpoint = struct({ tls = boolean }, { spiffe_id = text, labels = text_map })
endpoint.rule = "mtls_needs_spiffe_id"

local split_backend = struct { cluster = text, weight = integer(0, MAX_32) }

local _M = {}

-- Entries whose key is just the kind.
_M.SINGLE = {
    settings = struct({
        mtls_mode = enum("off", "permissive", "strict"),
        trust_domain = text,
        client_max_body_size = integer(0, MAX),
        log_level = enum("debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"),
        log_format = enum("default", "json"),
        addresses = texts,
        labels = text_map,
    }, { sampler_ratio = nullable { type = "number", low = 0, high = 1 } }),

    identity = struct({ spiffe_id = text, svid = text, key = text, bundle = text }, {
        federated = map(text, "trust_domain"),
    }),
}

-- Entries whose key is the kind, a slash and a name, which has this format.
_M.KEY_FORMATS = {
    inbound = "port",
    destination = "address",
    cluster = "text",
    split = "text",
    breaker = "text",
    probe = "path",
}

_M.KEYED = {
    inbound = struct({ protocols = list(protocol) }, {
        grants = nullable(list(grant)),
        limits = list(limit),
    }),

    destination = struct({ protocol = protocol, cluster = text }, { service = text }),

    cluster = struct { lb_method = lb_method, endpoints = map(endpoint, "address") },

    split = struct({ split = text, backends = list(split_backend) }, { matches = list(path_rule) }),

    breaker = struct({ breaker = text, errors = integer(1, 10000), timeout_ms = integer(1000, MAX_32) }, {
        fallback = text,
    }),

    probe = struct({ scheme = enum("http", "https", "tcp"), port = integer(1, 65535) }, {
        path = text,
        host = text,
        headers = text_map,
    }),
}

-- What goes over the control socket. The entries of `set` are checked by their keys.
_M.UPDATE = struct({ base = nullable(integer(1, MAX)), version = integer(1, MAX) }, {
    set = map { type = "any" },
    delete = texts,
    endpoints = map(map(nullable(endpoint), "address")),
})

-- Which requests to report to the node (PUT /v1/tap): those that all of it is true of. 0 seconds end the reports.
_M.TAP = struct({ seconds = integer(0, 60), max_rps = integer(1, 1000) }, {
    method = text,
    path = text,
    lowest = integer(0, 999),
    highest = integer(0, 999),
    peers = list { type = "string", format = "ip" },
})


return _M
