/* The log phase: counting the connection, and telling circuit breakers how it ended. */

#include "ngx_stream_mesh.h"

#include "ngx_mesh_totals.h"


ngx_int_t
ngx_stream_mesh_log_handler(ngx_stream_session_t *s)
{
    ngx_stream_mesh_ctx_t       *ctx;
    ngx_stream_mesh_srv_conf_t  *mscf;

    mscf = ngx_stream_get_module_srv_conf(s, ngx_stream_mesh_module);

    /* A connection that was sorted and passed on is counted where it was passed to, as a session or by its requests. */
    if (mscf->role == NGX_MESH_INBOUND || (mscf->sort == NGX_MESH_INBOUND && s->status != NGX_STREAM_OK)) {
        ngx_mesh_count_accepted(s->status);
    }

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

    if (ctx == NULL || ctx->tickets == NULL) {
        return NGX_OK;
    }

    if (s->upstream && s->upstream->connected) {
        ngx_mesh_tickets_end(ctx->tickets, BREAKER_SUCCEEDED);

    } else {
        ngx_mesh_tickets_end(ctx->tickets, s->status == NGX_STREAM_BAD_GATEWAY ? BREAKER_FAILED : BREAKER_UNKNOWN);
    }

    return NGX_OK;
}
