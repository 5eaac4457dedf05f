/*
 * Upstreams: endpoints of a cluster (mesh_balance), and the application (mesh_forward). What is carried is counted
 * here.
 */

#include "ngx_stream_mesh.h"

#include "ngx_mesh_counts.h"

static ngx_stream_filter_pt  ngx_stream_mesh_next_filter;

static ngx_int_t ngx_stream_mesh_balance_init_peer(ngx_stream_session_t *s, ngx_stream_upstream_srv_conf_t *us);
static ngx_int_t ngx_stream_mesh_balance_get(ngx_peer_connection_t *pc, void *data);
static void ngx_stream_mesh_balance_free(ngx_peer_connection_t *pc, void *data, ngx_uint_t state);
static void ngx_stream_mesh_balance_notify(ngx_peer_connection_t *pc, void *data, ngx_uint_t type);
static ngx_int_t ngx_stream_mesh_balance_set_session(ngx_peer_connection_t *pc, void *data);

static ngx_int_t ngx_stream_mesh_forward_init_peer(ngx_stream_session_t *s, ngx_stream_upstream_srv_conf_t *us);
static ngx_int_t ngx_stream_mesh_forward_get(ngx_peer_connection_t *pc, void *data);
static void ngx_stream_mesh_forward_free(ngx_peer_connection_t *pc, void *data, ngx_uint_t state);

static ngx_int_t ngx_stream_mesh_filter(ngx_stream_session_t *s, ngx_chain_t *in, ngx_uint_t from_upstream);


ngx_int_t
ngx_stream_mesh_balance_init(ngx_conf_t *cf, ngx_stream_upstream_srv_conf_t *us)
{
    (void) cf;

    us->peer.init = ngx_stream_mesh_balance_init_peer;

    return NGX_OK;
}


ngx_int_t
ngx_stream_mesh_forward_init(ngx_conf_t *cf, ngx_stream_upstream_srv_conf_t *us)
{
    (void) cf;

    us->peer.init = ngx_stream_mesh_forward_init_peer;

    return NGX_OK;
}


void
ngx_stream_mesh_filter_init(void)
{
    ngx_stream_mesh_next_filter = ngx_stream_top_filter;
    ngx_stream_top_filter = ngx_stream_mesh_filter;
}


/*
 * Counts what was carried since the last time. Connections may last for days, so that this cannot wait for their end.
 */
static void
ngx_stream_mesh_count(ngx_stream_session_t *s, ngx_stream_mesh_ctx_t *ctx)
{
    ngx_stream_upstream_t  *u = s->upstream;
    ngx_mesh_endpoint_t    *e = ctx->attempts.current;

    if (e == NULL || !u->connected) {
        return;
    }

    if (u->received && ctx->received == 0) {
        ngx_mesh_count_time(e, NGX_MESH_FIRST_BYTE_TIME, u->state->first_byte_time);
    }

    ngx_mesh_count_number(e, NGX_MESH_TCP_RECEIVED, u->received - ctx->received);
    ctx->received = u->received;

    if (u->peer.connection) {
        ngx_mesh_count_number(e, NGX_MESH_TCP_SENT, u->peer.connection->sent - ctx->sent);
        ctx->sent = u->peer.connection->sent;
    }
}


/*
 * The endpoint's sidecar accepts a connection before it knows whether its application does, and closes it when the
 * application does not. So an endpoint that ends a connection without a byte, before the caller ended its side, has
 * failed.
 */
static ngx_int_t
ngx_stream_mesh_filter(ngx_stream_session_t *s, ngx_chain_t *in, ngx_uint_t from_upstream)
{
    ngx_int_t               rc;
    ngx_chain_t            *cl;
    ngx_stream_mesh_ctx_t  *ctx;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

    if (from_upstream && ctx && ctx->tickets) {

        for (cl = in; cl; cl = cl->next) {

            if (ngx_buf_size(cl->buf) > 0) {
                ngx_mesh_tickets_begun(ctx->tickets);

            } else if (cl->buf->last_buf && s->upstream->received == 0 && !s->connection->read->eof) {
                ngx_mesh_tickets_end(ctx->tickets, BREAKER_FAILED);
            }
        }
    }

    rc = ngx_stream_mesh_next_filter(s, in, from_upstream);

    if (ctx && ctx->balanced) {
        ngx_stream_mesh_count(s, ctx);
    }

    return rc;
}


static ngx_int_t
ngx_stream_mesh_balance_init_peer(ngx_stream_session_t *s, ngx_stream_upstream_srv_conf_t *us)
{
    ngx_stream_upstream_t  *u = s->upstream;
    ngx_stream_mesh_ctx_t  *ctx;

    (void) us;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

    u->peer.data = s;
    u->peer.get = ngx_stream_mesh_balance_get;
    u->peer.free = ngx_stream_mesh_balance_free;
    u->peer.notify = ngx_stream_mesh_balance_notify;
    u->peer.set_session = ngx_stream_mesh_balance_set_session;
    u->peer.save_session = ngx_mesh_save_no_session;
    u->peer.tries = ctx->balanced ? ngx_mesh_attempts_tries(&ctx->attempts) : 1;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_mesh_balance_get(ngx_peer_connection_t *pc, void *data)
{
    ngx_int_t               rc;
    ngx_stream_session_t   *s = data;
    ngx_stream_mesh_ctx_t  *ctx;
    ngx_mesh_connection_t  *mc;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

    if (ctx->balanced) {
        rc = ngx_mesh_attempts_get(&ctx->attempts, pc, s->connection->pool);

        if (rc == NGX_OK) {
            ctx->sent = 0;
            ngx_mesh_count_number(ctx->attempts.current, NGX_MESH_TCP_CONNECTIONS, 1);
        }

        return rc;
    }

    /* It goes outside of the mesh, to the address that the application dialled. */

    mc = ngx_mesh_connection(s->connection);

    pc->sockaddr = (struct sockaddr *) &mc->original;
    pc->socklen = mc->socklen;
    pc->name = &mc->name;

    return NGX_OK;
}


/* The endpoint has taken the connection. */
static void
ngx_stream_mesh_balance_notify(ngx_peer_connection_t *pc, void *data, ngx_uint_t type)
{
    ngx_stream_session_t   *s = data;
    ngx_stream_mesh_ctx_t  *ctx;

    (void) pc;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

    if (type == NGX_STREAM_UPSTREAM_NOTIFY_CONNECT && ctx->balanced) {
        ngx_mesh_count_time(ctx->attempts.current, NGX_MESH_CONNECT_TIME, s->upstream->state->connect_time);
    }
}


static void
ngx_stream_mesh_balance_free(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    ngx_uint_t              failed;
    ngx_stream_session_t   *s = data;
    ngx_mesh_endpoint_t    *e;
    ngx_stream_mesh_ctx_t  *ctx;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

    if (ctx->balanced && ctx->attempts.current) {

        if (s->upstream->received) {
            ngx_mesh_attempts_first_byte(&ctx->attempts);
        }

        ngx_stream_mesh_count(s, ctx);

        /* It is also the last one that was chosen, and therefore still there afterwards. */
        e = ctx->attempts.current;
        failed = ngx_mesh_attempts_free(&ctx->attempts, pc, state, s->upstream->connected);

        if (s->upstream->connected) {
            ngx_mesh_count_time(e, NGX_MESH_RESPONSE_TIME, s->upstream->state->response_time);
        }

        ngx_mesh_count_number(e, NGX_MESH_TCP_FAILS, failed);
    }

    if (pc->tries) {
        pc->tries--;
    }
}


static ngx_int_t
ngx_stream_mesh_balance_set_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_stream_session_t   *s = data;
    ngx_stream_mesh_ctx_t  *ctx;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

    return ctx->balanced ? ngx_mesh_attempts_secure(&ctx->attempts, pc, 1) : NGX_ERROR;
}


static ngx_int_t
ngx_stream_mesh_forward_init_peer(ngx_stream_session_t *s, ngx_stream_upstream_srv_conf_t *us)
{
    ngx_stream_upstream_t  *u = s->upstream;

    (void) us;

    u->peer.data = s;
    u->peer.get = ngx_stream_mesh_forward_get;
    u->peer.free = ngx_stream_mesh_forward_free;
    u->peer.tries = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_mesh_forward_get(ngx_peer_connection_t *pc, void *data)
{
    ngx_stream_session_t  *s = data;

    return ngx_mesh_connection_forward(s->connection, pc, 0);
}


static void
ngx_stream_mesh_forward_free(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    (void) data;
    (void) state;

    if (pc->tries) {
        pc->tries--;
    }
}
