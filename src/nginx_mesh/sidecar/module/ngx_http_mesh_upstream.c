/* Upstreams: endpoints of a cluster (mesh_balance), and the application (mesh_forward). */

#include "ngx_http_mesh.h"

#include "ngx_mesh_connection.h"
#include "ngx_mesh_counts.h"

/* Time between two reads of an upgraded connection or an event stream; other requests have proxy_read_timeout. */
#define NGX_HTTP_MESH_LONG_TIMEOUT  (24 * 3600 * 1000)

/* Kept connections that one request may find closed before that counts as a try. */
#define NGX_HTTP_MESH_STALE_MAX     5

static ngx_int_t ngx_http_mesh_balance_init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us);
static ngx_int_t ngx_http_mesh_balance_get(ngx_peer_connection_t *pc, void *data);
static void ngx_http_mesh_balance_free(ngx_peer_connection_t *pc, void *data, ngx_uint_t state);
static ngx_int_t ngx_http_mesh_balance_set_session(ngx_peer_connection_t *pc, void *data);
static void ngx_http_mesh_hook_process_header(ngx_http_request_t *r, ngx_http_mesh_ctx_t *ctx);
static ngx_int_t ngx_http_mesh_process_header(ngx_http_request_t *r);
static ngx_int_t ngx_http_mesh_reinit_request(ngx_http_request_t *r);
static void ngx_http_mesh_finalize_request(ngx_http_request_t *r, ngx_int_t rc);

static ngx_int_t ngx_http_mesh_forward_init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us);
static ngx_int_t ngx_http_mesh_forward_get(ngx_peer_connection_t *pc, void *data);
static ngx_int_t ngx_http_mesh_forward_set_session(ngx_peer_connection_t *pc, void *data);

static void ngx_http_mesh_try_end(ngx_peer_connection_t *pc, void *data, ngx_uint_t state);


ngx_int_t
ngx_http_mesh_balance_init(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
    (void) cf;

    us->peer.init = ngx_http_mesh_balance_init_peer;

    return NGX_OK;
}


ngx_int_t
ngx_http_mesh_forward_init(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
    (void) cf;

    us->peer.init = ngx_http_mesh_forward_init_peer;

    return NGX_OK;
}


/*
 * Of the requests that have been sent, nginx retries all but POST, PATCH and LOCK, unknown methods included. But these
 * may not be idempotent.
 */
static void
ngx_http_mesh_never_retry_unknown_methods(ngx_http_request_t *r)
{
    if (r->method == NGX_HTTP_UNKNOWN) {
        r->method = NGX_HTTP_LOCK;
    }
}


/* Upgraded connections and event streams may be silent for long. */
static ngx_uint_t
ngx_http_mesh_is_long_lived(ngx_http_request_t *r)
{
    ngx_table_elt_t   *accept;
    static ngx_str_t   events = ngx_string("text/event-stream");

    if (r->headers_in.upgrade) {
        return 1;
    }

    accept = r->headers_in.accept;

    return accept != NULL
           && ngx_strlcasestrn(accept->value.data, accept->value.data + accept->value.len, events.data,
                               events.len - 1) != NULL;
}


static ngx_int_t
ngx_http_mesh_lengthen_timeouts(ngx_http_request_t *r)
{
    ngx_http_upstream_conf_t  *conf;

    if (!ngx_http_mesh_is_long_lived(r)) {
        return NGX_OK;
    }

    conf = ngx_palloc(r->pool, sizeof(ngx_http_upstream_conf_t));
    if (conf == NULL) {
        return NGX_ERROR;
    }

    *conf = *r->upstream->conf;
    conf->read_timeout = NGX_HTTP_MESH_LONG_TIMEOUT;
    conf->send_timeout = NGX_HTTP_MESH_LONG_TIMEOUT;

    r->upstream->conf = conf;

    return NGX_OK;
}


/* Prepares what requests to endpoints and requests to the application have in common. */
static ngx_int_t
ngx_http_mesh_init_peer(ngx_http_request_t *r)
{
    r->upstream->peer.data = r;
    r->upstream->peer.save_session = ngx_mesh_save_no_session;

    ngx_http_mesh_never_retry_unknown_methods(r);

    return ngx_http_mesh_lengthen_timeouts(r);
}


static ngx_int_t
ngx_http_mesh_balance_init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    ngx_http_upstream_t  *u = r->upstream;
    ngx_http_mesh_ctx_t  *ctx;

    (void) us;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx == NULL || !ctx->balanced) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "no cluster was chosen for the request");
        return NGX_ERROR;
    }

    u->peer.get = ngx_http_mesh_balance_get;
    u->peer.free = ngx_http_mesh_balance_free;
    u->peer.set_session = ngx_http_mesh_balance_set_session;
    u->peer.tries = ngx_mesh_attempts_tries(&ctx->attempts);

    ngx_http_mesh_hook_process_header(r, ctx);

    ctx->reinit_request = u->reinit_request;
    u->reinit_request = ngx_http_mesh_reinit_request;

    if (ctx->tickets) {
        ctx->finalize_request = u->finalize_request;
        u->finalize_request = ngx_http_mesh_finalize_request;
    }

    return ngx_http_mesh_init_peer(r);
}


static ngx_int_t
ngx_http_mesh_balance_get(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_request_t   *r = data;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    return ngx_mesh_attempts_get(&ctx->attempts, pc, r->pool);
}


static void
ngx_http_mesh_balance_free(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    ngx_uint_t                  failed;
    ngx_http_request_t         *r = data;
    ngx_http_mesh_ctx_t        *ctx;
    ngx_mesh_endpoint_t        *e;
    ngx_http_mesh_loc_conf_t   *mlcf;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);
    mlcf = ngx_http_get_module_loc_conf(r, ngx_http_mesh_module);

    e = ctx->attempts.current;
    failed = ngx_mesh_attempts_free(&ctx->attempts, pc, state, ctx->attempts.got_first_byte);

    if (e && mlcf->count) {
        /* It is also the last one that was chosen, and therefore still there. */
        ngx_mesh_count_number(e, NGX_MESH_HTTP_SENT, r->upstream->state->bytes_sent);
        ngx_mesh_count_number(e, NGX_MESH_HTTP_RECEIVED, r->upstream->state->bytes_received);
        ngx_mesh_count_number(e, NGX_MESH_HTTP_FAILS, failed);
    }

    ngx_http_mesh_try_end(pc, r, state);
}


static ngx_int_t
ngx_http_mesh_balance_set_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_request_t   *r = data;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    return ngx_mesh_attempts_secure(&ctx->attempts, pc, 0);
}


/*
 * Puts our handler before that of the protocol's module. That module changes its handler between the parts of a header,
 * and before another attempt.
 */
static void
ngx_http_mesh_hook_process_header(ngx_http_request_t *r, ngx_http_mesh_ctx_t *ctx)
{
    ngx_http_upstream_t  *u = r->upstream;

    if (u->process_header != ngx_http_mesh_process_header) {
        ctx->process_header = u->process_header;
        u->process_header = ngx_http_mesh_process_header;
    }
}


static ngx_int_t
ngx_http_mesh_reinit_request(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    rc = ctx->reinit_request(r);

    ngx_http_mesh_hook_process_header(r, ctx);

    return rc;
}


/* Whether the endpoint's sidecar answered because its application did not. */
static ngx_uint_t
ngx_http_mesh_is_refusal(ngx_http_upstream_t *u)
{
    static ngx_str_t   name = ngx_string("x-nginx-mesh-refused");

    return u->headers_in.status_n == NGX_HTTP_BAD_GATEWAY && ngx_http_mesh_field(&u->headers_in.headers, &name);
}


/* An endpoint whose application refuses is like one that refuses itself: another is tried, where that is allowed. */
static ngx_int_t
ngx_http_mesh_process_header(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    rc = ctx->process_header(r);

    ngx_http_mesh_hook_process_header(r, ctx);

    if (rc == NGX_OK && ngx_http_mesh_is_refusal(r->upstream)) {
        ctx->attempts.refused = 1;
        return NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }

    return rc;
}


/* An answer that broke off after its header is seen nowhere else. */
static void
ngx_http_mesh_finalize_request(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);
    ctx->ended = rc;

    ctx->finalize_request(r, rc);
}


static ngx_int_t
ngx_http_mesh_forward_init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    ngx_http_upstream_t  *u = r->upstream;

    (void) us;

    u->peer.get = ngx_http_mesh_forward_get;
    u->peer.free = ngx_http_mesh_try_end;
    u->peer.set_session = ngx_http_mesh_forward_set_session;
    u->peer.tries = 1;

    return ngx_http_mesh_init_peer(r);
}


static ngx_int_t
ngx_http_mesh_forward_get(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_request_t   *r = data;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    return ngx_mesh_connection_forward(r->connection, pc, ctx ? ctx->forward_port : 0);
}


/* The application's own TLS, which HTTPS probes use, is not verified here. */
static ngx_int_t
ngx_http_mesh_forward_set_session(ngx_peer_connection_t *pc, void *data)
{
    (void) pc;
    (void) data;

    return NGX_OK;
}


/*
 * Ends a try. To nginx it is no try when a kept connection fails, so that it would use up all that are kept: an
 * application that reads a request and then closes could get it a hundred times.
 */
static void
ngx_http_mesh_try_end(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    ngx_http_request_t   *r = data;
    ngx_http_mesh_ctx_t  *ctx;

    if (pc->cached && (state & NGX_PEER_FAILED)) {
        ctx = ngx_http_mesh_ctx(r);

        if (ctx == NULL || ++ctx->stale > NGX_HTTP_MESH_STALE_MAX) {
            pc->cached = 0;
        }
    }

    if (pc->tries) {
        pc->tries--;
    }
}
