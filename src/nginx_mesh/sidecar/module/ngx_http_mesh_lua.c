/* What Lua asks and tells of the request that it handles, beside the checks of the access phase. */

#include "ngx_http_mesh.h"

#include "ngx_mesh_connection.h"
#include "ngx_mesh_log.h"
#include "ngx_mesh_strings.h"


size_t
ngx_http_mesh_ffi_original(ngx_http_request_t *r, const char **data, ngx_uint_t *port)
{
    ngx_mesh_connection_t  *mc;

    mc = ngx_mesh_connection(r->connection);
    if (mc == NULL) {
        return 0;
    }

    *data = (const char *) mc->name.data;
    *port = mc->port;

    return mc->name.len;
}


int
ngx_http_mesh_ffi_peer(ngx_http_request_t *r, const char **data, size_t *len)
{
    ngx_str_t  id;

    if (!ngx_mesh_connection_is_tls(r->connection)) {
        return -1;
    }

    if (ngx_mesh_connection_peer(r->connection, &id) != NGX_OK) {
        return 0;
    }

    *data = (const char *) id.data;
    *len = id.len;

    return 1;
}


ngx_int_t
ngx_http_mesh_ffi_forward(ngx_http_request_t *r, ngx_uint_t port)
{
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_mesh_ctx(r);
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    ctx->forward_port = (in_port_t) port;

    return NGX_OK;
}


size_t
ngx_http_mesh_ffi_granted(ngx_http_request_t *r, const char **data)
{
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);
    if (ctx == NULL) {
        return 0;
    }

    *data = (const char *) ctx->policy.data;

    return ctx->policy.len;
}


void
ngx_http_mesh_ffi_refused(ngx_http_request_t *r, const char *reason, size_t len)
{
    ngx_str_t             str = ngx_mesh_str(reason, len);
    ngx_http_mesh_ctx_t  *ctx;

    ngx_mesh_log_decision(r->connection->log, "the request is refused: %V", ngx_mesh_log_text(str.data, str.len));

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx && ctx->role) {
        (void) ngx_mesh_str_dup(&ctx->reason, r->pool, &str);
    }
}
