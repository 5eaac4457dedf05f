-- The values that the state and the C module know under different forms: names in the state, numbers in the module. The
-- numbers are those of module/ngx_mesh_lua.h, module/lb.h and module/breaker.h. Pure data.

return {
    MTLS_MODES = { off = 0, permissive = 1, strict = 2 },

    -- nginx's log levels.
    LOG_LEVELS = {
        emerg = 1,
        alert = 2,
        crit = 3,
        error = 4,
        warn = 5,
        notice = 6,
        info = 7,
        debug = 0x7ffffff0,                             -- NGX_LOG_DEBUG_ALL
    },

    LB_METHODS = {
        ["round_robin"] = 0,
        ["least_conn"] = 1,
        ["least_time"] = 2,
        ["least_time last_byte"] = 3,
        ["least_time last_byte inflight"] = 4,
        ["random"] = 5,
        ["random two"] = 6,
        ["random two least_conn"] = 7,
        ["random two least_time"] = 8,
        ["random two least_time=last_byte"] = 9,
    },

    -- Bits: a port may carry both kinds of traffic. gRPC is HTTP to the module.
    PROTOCOL_BITS = { http = 1, grpc = 1, tcp = 2 },

    BREAKER_STATES = { [0] = "closed", [1] = "open", [2] = "half-open" },
}
