-- Refuses a request in the form that its protocol has for it: a status and a line of text for HTTP, a status in the
-- header frame for gRPC.

local GRPC_CODES = require "mesh.grpc_codes"
local native_request = require "mesh.native.request"


-- Ends the request with an HTTP status and a reason. `grpc_code` replaces the gRPC code that goes with the status.
return function(status, reason, grpc_code)
    native_request.refused(reason)

    local content_type = ngx.var.http_content_type

    if content_type and content_type:sub(1, 16) == "application/grpc" then
        -- Without a body the stream ends with the header frame, as a gRPC status without a message must.
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
