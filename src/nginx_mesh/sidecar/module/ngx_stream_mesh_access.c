/*
 * Access to the listeners that carry TCP. What was checked when the connection was sorted is checked again: it may have
 * changed during the handshake, somebody may have connected to this listener directly, and only now is the caller's
 * identity known.
 */

#include "ngx_stream_mesh.h"

#include "ngx_mesh_authorization.h"
#include "ngx_mesh_log.h"
#include "ngx_mesh_strings.h"
#include "ngx_mesh_tcp_access.h"
#include "ngx_mesh_totals.h"

/* The connections from the wire that this worker carries to the application: ngx_stream_mesh_ctx_t. */
static ngx_queue_t  ngx_stream_mesh_accepted;

static ngx_int_t ngx_stream_mesh_access_inbound(ngx_stream_session_t *s, ngx_stream_mesh_srv_conf_t *mscf,
    ngx_stream_mesh_ctx_t *ctx, ngx_mesh_connection_t *mc);
static ngx_int_t ngx_stream_mesh_access_outbound(ngx_stream_session_t *s, ngx_stream_mesh_srv_conf_t *mscf,
    ngx_stream_mesh_ctx_t *ctx, ngx_mesh_connection_t *mc);
static void ngx_stream_mesh_authorization_changed(void);
static void ngx_stream_mesh_authorize_accepted(ngx_event_t *ev);


void
ngx_stream_mesh_access_init(void)
{
    ngx_mesh_authorization_on_change(ngx_stream_mesh_authorization_changed);
}


ngx_int_t
ngx_stream_mesh_access_handler(ngx_stream_session_t *s)
{
    ngx_int_t                    rc;
    ngx_mesh_connection_t       *mc;
    ngx_stream_mesh_ctx_t       *ctx;
    ngx_stream_mesh_srv_conf_t  *mscf;

    mscf = ngx_stream_get_module_srv_conf(s, ngx_stream_mesh_module);

    if (mscf->role == NGX_MESH_NONE) {
        return NGX_DECLINED;
    }

    rc = ngx_stream_mesh_check(s, &ctx, &mc);
    if (rc != NGX_OK) {
        return rc;
    }

    return mscf->role == NGX_MESH_INBOUND ? ngx_stream_mesh_access_inbound(s, mscf, ctx, mc)
                                          : ngx_stream_mesh_access_outbound(s, mscf, ctx, mc);
}


/* ngx_mesh_tcp_access of a connection that is ended if it has no access. A denial is counted. */
static const char *
ngx_stream_mesh_authorize(ngx_connection_t *c, ngx_uint_t tls, ngx_str_t *by)
{
    const char  *reason;

    reason = ngx_mesh_tcp_access(c, tls, by);

    if (reason == ngx_mesh_tcp_denied) {
        ngx_mesh_count_total(NGX_MESH_TOTAL_DENIED);
    }

    return reason;
}


static void
ngx_stream_mesh_accepted_remove(void *data)
{
    ngx_stream_mesh_ctx_t  *ctx = data;

    ngx_queue_remove(&ctx->queue);
}


static ngx_int_t
ngx_stream_mesh_accepted_add(ngx_stream_session_t *s, ngx_stream_mesh_ctx_t *ctx)
{
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(s->connection->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_stream_mesh_accepted_remove;
    cln->data = ctx;

    if (ngx_stream_mesh_accepted.next == NULL) {
        ngx_queue_init(&ngx_stream_mesh_accepted);
    }

    ctx->session = s;
    ngx_queue_insert_tail(&ngx_stream_mesh_accepted, &ctx->queue);

    return NGX_OK;
}


static void
ngx_stream_mesh_log_access(ngx_connection_t *c, ngx_mesh_connection_t *mc, ngx_uint_t tls, const ngx_str_t *by,
    const char *reason)
{
    ngx_str_t  id = ngx_null_string;

    if (tls) {
        (void) ngx_mesh_connection_peer(c, &id);
    }

    ngx_mesh_log_decision(c->log,
                          "access rules of the port %ui %s a TCP connection of the caller \"%V\", grant \"%V\"%s%s",
                          (ngx_uint_t) mc->port, reason ? "deny" : "allow", ngx_mesh_log_text(id.data, id.len), by,
                          reason ? ": " : "", reason ? reason : "");
}


static ngx_int_t
ngx_stream_mesh_access_inbound(ngx_stream_session_t *s, ngx_stream_mesh_srv_conf_t *mscf, ngx_stream_mesh_ctx_t *ctx,
    ngx_mesh_connection_t *mc)
{
    ngx_str_t          by;
    const char        *reason;
    ngx_connection_t  *c = s->connection;

    reason = ngx_stream_mesh_authorize(c, mscf->tls, &by);

    if (c->log->log_level >= NGX_LOG_DEBUG) {
        ngx_stream_mesh_log_access(c, mc, mscf->tls, &by, reason);
    }

    if (reason) {
        return ngx_stream_mesh_refuse(s, mc, reason);
    }

    if (by.len && ngx_mesh_str_dup(&ctx->policy, c->pool, &by) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_stream_mesh_accepted_add(s, ctx) == NGX_OK ? NGX_DECLINED : NGX_ERROR;
}


static ngx_int_t
ngx_stream_mesh_access_outbound(ngx_stream_session_t *s, ngx_stream_mesh_srv_conf_t *mscf, ngx_stream_mesh_ctx_t *ctx,
    ngx_mesh_connection_t *mc)
{
    if (mc->cluster == NULL) {
        return NGX_DECLINED;
    }

    if (ngx_mesh_attempts_init(&ctx->attempts, mc->cluster, s->connection->pool) != NGX_OK) {
        return ngx_stream_mesh_refuse(s, mc, "no endpoint may be called");
    }

    ctx->balanced = 1;
    ctx->tickets = mc->tickets;
    ctx->attempts.tls = mscf->tls;

    return NGX_DECLINED;
}


/* At the end of this turn of the event loop all connections are authorized again, once for all changes of the turn. */
static void
ngx_stream_mesh_authorization_changed(void)
{
    static ngx_event_t  authorize = { .handler = ngx_stream_mesh_authorize_accepted };

    if (ngx_stream_mesh_accepted.next) {
        authorize.log = ngx_cycle->log;
        ngx_post_event(&authorize, &ngx_posted_events);
    }
}


/*
 * Closes the connections that have lost their access. It does so as a worker that shuts down does: nginx's proxy looks
 * at `close` before anything else.
 */
static void
ngx_stream_mesh_authorize_accepted(ngx_event_t *ev)
{
    const char                  *reason;
    ngx_str_t                    by;
    ngx_queue_t                 *q, *next;
    ngx_connection_t            *c;
    ngx_mesh_connection_t       *mc;
    ngx_stream_mesh_ctx_t       *ctx;
    ngx_stream_mesh_srv_conf_t  *mscf;

    (void) ev;

    for (q = ngx_queue_head(&ngx_stream_mesh_accepted); q != ngx_queue_sentinel(&ngx_stream_mesh_accepted); q = next) {
        next = ngx_queue_next(q);

        ctx = ngx_queue_data(q, ngx_stream_mesh_ctx_t, queue);
        c = ctx->session->connection;
        mc = ngx_mesh_connection(c);
        mscf = ngx_stream_get_module_srv_conf(ctx->session, ngx_stream_mesh_module);
        reason = ngx_stream_mesh_authorize(c, mscf->tls, &by);

        if (reason) {
            ngx_log_error(NGX_LOG_WARN, c->log, 0, "connection to \"%V\" is closed: %s", &mc->name, reason);

            c->error = 1;
            c->close = 1;
            c->read->handler(c->read);
        }
    }
}
