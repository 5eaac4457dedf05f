/* Whether a request has failed, in the sense of circuit breakers. */

#include "ngx_http_mesh.h"


/*
 * Whether the deadline of a gRPC caller has passed. How long the request took to get here is not known; a tenth of the
 * caller's time is assumed.
 */
static ngx_uint_t
ngx_http_mesh_grpc_late(ngx_http_request_t *r)
{
    int64_t           n, us;
    const ngx_str_t  *timeout;
    static ngx_str_t  name = ngx_string("grpc-timeout");

    timeout = ngx_http_mesh_field(&r->headers_in.headers, &name);

    /* It has at most eight digits, and a unit. */
    if (timeout == NULL || timeout->len < 2 || timeout->len > 9) {
        return 0;
    }

    n = ngx_atoi(timeout->data, timeout->len - 1);
    if (n == NGX_ERROR) {
        return 0;
    }

    switch (timeout->data[timeout->len - 1]) {

    case 'H':
        us = n * 3600 * 1000000;
        break;

    case 'M':
        us = n * 60 * 1000000;
        break;

    case 'S':
        us = n * 1000000;
        break;

    case 'm':
        us = n * 1000;
        break;

    case 'u':
        us = n;
        break;

    case 'n':
        us = n / 1000;
        break;

    default:
        return 0;
    }

    return ngx_http_mesh_elapsed(r) >= us / 1000 * 9 / 10;
}


/*
 * DEADLINE_EXCEEDED, INTERNAL and UNAVAILABLE are to gRPC what 5xx is to HTTP. A caller whose deadline has passed
 * leaves without waiting for a status.
 */
static ngx_uint_t
ngx_http_mesh_grpc_failed(ngx_http_request_t *r)
{
    ngx_int_t         code;
    ngx_uint_t        grpc;
    const ngx_str_t  *status = NULL;
    static ngx_str_t  type = ngx_string("application/grpc");
    static ngx_str_t  name = ngx_string("grpc-status");

    grpc = r->headers_out.content_type.len >= type.len
           && ngx_strncasecmp(r->headers_out.content_type.data, type.data, type.len) == 0;

    if (grpc) {
        status = ngx_http_mesh_field(&r->headers_out.headers, &name);

        if (status == NULL) {
            status = ngx_http_mesh_field(&r->headers_out.trailers, &name);
        }
    }

    if (status == NULL) {
        return (grpc || r->upstream->headers_in.status_n == 0) && ngx_http_mesh_grpc_late(r);
    }

    code = ngx_atoi(status->data, status->len);

    return code == 4 || code == 13 || code == 14;
}


breaker_outcome
ngx_http_mesh_outcome(ngx_http_request_t *r, ngx_http_mesh_ctx_t *ctx)
{
    if (ctx->attempts.last == NULL) {
        return BREAKER_UNKNOWN;
    }

    if (ngx_http_mesh_status(r) >= NGX_HTTP_INTERNAL_SERVER_ERROR || ngx_http_mesh_grpc_failed(r)
        || ctx->ended == NGX_HTTP_BAD_GATEWAY || ctx->ended == NGX_HTTP_GATEWAY_TIME_OUT)
    {
        return BREAKER_FAILED;
    }

    return r->upstream->headers_in.status_n ? BREAKER_SUCCEEDED : BREAKER_UNKNOWN;
}
