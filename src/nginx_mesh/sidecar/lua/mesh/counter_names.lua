-- The names of the numbers that the C module counts, in the module's order (the enumerations in
-- module/ngx_mesh_lua.h). Pure data.

return {
    -- Numbers that belong to no endpoint. The session_ names end with the statuses that nginx gives to TCP sessions.
    TOTALS = {
        "denied",
        "server_ok",
        "server_failed",
        "client_ok",
        "client_failed",
        "1xx",
        "2xx",
        "3xx",
        "4xx",
        "5xx",
        "session_200",
        "session_400",
        "session_403",
        "session_500",
        "session_502",
        "session_503",
    },

    -- Numbers of one endpoint: those of HTTP come first, those of TCP follow.
    HTTP_NUMBERS = { "sent", "received", "fails" },
    TCP_NUMBERS = { "connections", "sent", "received", "fails" },

    -- Histograms of the TCP connections to one endpoint.
    TCP_TIMES = { "connect_time", "first_byte_time", "response_time" },
}
