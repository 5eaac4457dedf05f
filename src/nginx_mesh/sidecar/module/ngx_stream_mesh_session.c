#include "ngx_stream_mesh.h"


ngx_stream_mesh_ctx_t *
ngx_stream_mesh_ctx(ngx_stream_session_t *s)
{
    ngx_stream_mesh_ctx_t  *ctx;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

    if (ctx == NULL) {
        ctx = ngx_pcalloc(s->connection->pool, sizeof(ngx_stream_mesh_ctx_t));
        if (ctx) {
            ngx_stream_set_ctx(s, ctx, ngx_stream_mesh_module);
        }
    }

    return ctx;
}


ngx_int_t
ngx_stream_mesh_refuse(ngx_stream_session_t *s, ngx_mesh_connection_t *mc, const char *reason)
{
    ngx_log_error(NGX_LOG_WARN, s->connection->log, 0, "connection to \"%V\" refused: %s", &mc->name, reason);

    return NGX_STREAM_FORBIDDEN;
}


ngx_int_t
ngx_stream_mesh_check(ngx_stream_session_t *s, ngx_stream_mesh_ctx_t **ctx, ngx_mesh_connection_t **mc)
{
    *mc = ngx_mesh_connection(s->connection);
    *ctx = ngx_stream_mesh_ctx(s);

    if (*mc == NULL || *ctx == NULL) {
        return NGX_ERROR;
    }

    if (!ngx_mesh_settings.ready) {
        return ngx_stream_mesh_refuse(s, *mc, "the sidecar has no state yet");
    }

    if ((*mc)->name.len == 0 || ngx_mesh_connection_is_local(*mc)) {
        return ngx_stream_mesh_refuse(s, *mc, "the connection was not redirected here");
    }

    return NGX_OK;
}
