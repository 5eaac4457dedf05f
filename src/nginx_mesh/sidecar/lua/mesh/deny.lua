-- Refusals, in the words of the protocol: a status and a line of text for HTTP, a status in trailers for gRPC.

-- HTTP status -> gRPC status code (https://grpc.github.io/grpc/core/md_doc_statuscodes.html)
local GRPC_CODES = {
    [400] = 16,                         -- UNAUTHENTICATED
    [403] = 7,                          -- PERMISSION_DENIED
    [413] = 8,                          -- RESOURCE_EXHAUSTED
    [503] = 14,                         -- UNAVAILABLE
}


-- Ends the request. `grpc_code` replaces the code that goes with `status`.
return function(status, reason, grpc_code)
    local content_type = ngx.var.http_content_type

    if content_type and content_type:sub(1, 16) == "application/grpc" then
        -- no body: the stream ends with the header frame, as a gRPC status without a message must
        ngx.status = 200
        ngx.header["Content-Type"] = "application/grpc"
        ngx.header["Content-Length"] = 0
        ngx.header["grpc-status"] = grpc_code or GRPC_CODES[status]
        ngx.header["grpc-message"] = reason
        ngx.send_headers()
        return ngx.exit(200)
    end

    ngx.status = status
    ngx.header["Content-Type"] = "text/plain"
    ngx.say("nginx-mesh: ", reason)

    return ngx.exit(status)
end
