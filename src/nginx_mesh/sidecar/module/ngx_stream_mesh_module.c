/*
 * Stream side of the module: sorting connections, and carrying TCP.
 *
 * `mesh_sort outbound|inbound` in a server decides where the connection goes; $mesh_listener is the
 * internal listener to `pass` it to. `mesh_role outbound|inbound` in a server that carries TCP; `mesh_tls` and the
 * upstream directives as in http.
 */

#include <ngx_stream.h>

#include "ngx_mesh.h"

/*
 * How long a caller may be silent before it is taken for plaintext of a protocol whose server speaks first. Sidecars
 * send their ClientHello at once; this leaves room for a lost packet.
 */
#define NGX_STREAM_MESH_SILENCE  1000

/* The same where mTLS is off: only while the mode changes does a sidecar still speak TLS. */
#define NGX_STREAM_MESH_SILENCE_OFF  50

/* The same in strict mode, where silence is refused: no hurry, but a plaintext caller should learn of it. */
#define NGX_STREAM_MESH_SILENCE_STRICT  5000

/* How long to wait for the first bytes where the caller has to speak first. */
#define NGX_STREAM_MESH_HELLO    60000

#define NGX_STREAM_MESH_PEEK        (16384 + 5)

typedef struct {
    ngx_uint_t            sort;
    ngx_uint_t            role;
    ngx_flag_t            tls;
} ngx_stream_mesh_srv_conf_t;

typedef struct {
    ngx_str_t             listener;
    ngx_mesh_attempts_t   attempts;
    ngx_uint_t            balanced;
    off_t                 sent;         /* to the endpoint and received from it: what is counted */
    off_t                 received;
    ngx_mesh_guards_t    *guards;       /* NULL: no breaker asks for the outcome */
    ngx_str_t             policy;       /* the grant that allowed it; in the pool */
    ngx_stream_session_t *session;
    ngx_queue_t           queue;        /* in ngx_stream_mesh_carried: TCP from the wire */
} ngx_stream_mesh_ctx_t;

typedef ngx_int_t (*ngx_stream_mesh_step_pt)(ngx_stream_session_t *s, ngx_stream_mesh_srv_conf_t *mscf,
    ngx_stream_mesh_ctx_t *ctx, ngx_mesh_connection_t *mc);

/* The internal listeners of nginx.conf. */
static ngx_str_t  ngx_stream_mesh_out_http = ngx_string("127.0.0.1:8888");
static ngx_str_t  ngx_stream_mesh_in_http_mtls = ngx_string("127.0.0.1:8889");
static ngx_str_t  ngx_stream_mesh_in_http_plain = ngx_string("127.0.0.1:8890");
static ngx_str_t  ngx_stream_mesh_out_tcp_mtls = ngx_string("127.0.0.1:8891");
static ngx_str_t  ngx_stream_mesh_out_tcp_plain = ngx_string("127.0.0.1:8892");
static ngx_str_t  ngx_stream_mesh_in_tcp_mtls = ngx_string("127.0.0.1:8893");
static ngx_str_t  ngx_stream_mesh_in_tcp_plain = ngx_string("127.0.0.1:8894");

static const char  ngx_stream_mesh_denied[] = "access denied";

/* The connections from the wire that this worker carries to the application: ngx_stream_mesh_ctx_t. */
static ngx_queue_t  ngx_stream_mesh_carried;


static ngx_stream_filter_pt  ngx_stream_mesh_next_filter;


static ngx_int_t
ngx_stream_mesh_refuse(ngx_stream_session_t *s, ngx_mesh_connection_t *mc, const char *why)
{
    ngx_log_error(NGX_LOG_WARN, s->connection->log, 0, "connection to \"%V\" refused: %s", &mc->name, why);

    return NGX_STREAM_FORBIDDEN;
}


static ngx_int_t
ngx_stream_mesh_sort_outbound(ngx_stream_session_t *s, ngx_stream_mesh_ctx_t *ctx, ngx_mesh_connection_t *mc)
{
    ngx_int_t                rc;
    ngx_mesh_route_t         route;
    ngx_mesh_destination_t  *d;

    d = ngx_mesh_destination_find(&mc->name);

    if (d == NULL) {

        if (ngx_mesh_settings.mode == NGX_MESH_STRICT) {
            return ngx_stream_mesh_refuse(s, mc, "it is not meshed and mTLS is strict");
        }

        ctx->listener = ngx_stream_mesh_out_tcp_plain;
        return NGX_OK;
    }

    if (d->protocols & NGX_MESH_PROTOCOL_HTTP) {
        ctx->listener = ngx_stream_mesh_out_http;
        return NGX_OK;
    }

    rc = ngx_mesh_route(&route, d, NULL, s->connection->pool);

    if (rc == NGX_ABORT) {
        return ngx_stream_mesh_refuse(s, mc, "the circuit is open and there is no fallback to call");
    }

    if (rc != NGX_OK || ngx_mesh_attempts_init(&ctx->attempts, route.cluster, s->connection->pool) != NGX_OK) {
        return ngx_stream_mesh_refuse(s, mc, "no endpoint may be called");
    }

    /* the attempts hold the cluster */
    mc->cluster = route.cluster;
    mc->guards = route.guards;

    ctx->listener = ctx->attempts.tls ? ngx_stream_mesh_out_tcp_mtls : ngx_stream_mesh_out_tcp_plain;

    return NGX_OK;
}


/* Looks at what the client has sent without taking it. NGX_AGAIN: come back when there is more. */
static ngx_int_t
ngx_stream_mesh_peek(ngx_connection_t *c, hello_kind *kind)
{
    ssize_t        n;
    static u_char  data[NGX_STREAM_MESH_PEEK];

    n = recv(c->fd, data, sizeof(data), MSG_PEEK);

    if (n == -1 && ngx_socket_errno != NGX_EAGAIN && ngx_socket_errno != NGX_EINTR) {
        return NGX_ERROR;
    }

    if (n == 0) {
        /* half-closed before a word: let the application see it */
        *kind = HELLO_PLAIN;

    } else {
        *kind = n > 0 ? hello_classify(data, n) : HELLO_MORE;
    }

    return *kind == HELLO_MORE ? NGX_AGAIN : NGX_OK;
}


/*
 * Who has not said a word is the first to go when connections run short or the worker ends: else anybody could fill the
 * sidecar with silence.
 */
static void
ngx_stream_mesh_idle(ngx_connection_t *c, ngx_uint_t idle)
{
    c->idle = idle;
    ngx_reusable_connection(c, idle);
}


static void
ngx_stream_mesh_resume(ngx_event_t *rev)
{
    ngx_connection_t      *c = rev->data;
    ngx_stream_session_t  *s = c->data;

    if (c->close) {
        ngx_stream_finalize_session(s, NGX_STREAM_OK);
        return;
    }

    ngx_stream_mesh_idle(c, 0);
    ngx_stream_core_run_phases(s);
}


static ngx_int_t
ngx_stream_mesh_wait(ngx_connection_t *c, ngx_msec_t limit)
{
    if (!c->read->timer_set) {
        ngx_add_timer(c->read, limit);
    }

    c->read->handler = ngx_stream_mesh_resume;
    ngx_stream_mesh_idle(c, 1);

    return ngx_handle_read_event(c->read, 0) == NGX_OK ? NGX_AGAIN : NGX_ERROR;
}


static ngx_int_t
ngx_stream_mesh_sort_inbound(ngx_stream_session_t *s, ngx_stream_mesh_ctx_t *ctx, ngx_mesh_connection_t *mc)
{
    ngx_int_t          rc;
    hello_kind         kind;
    ngx_uint_t         protocols, http, tcp;
    ngx_connection_t  *c = s->connection;
    static ngx_msec_t  limits[] = {
        [NGX_MESH_OFF] = NGX_STREAM_MESH_SILENCE_OFF,
        [NGX_MESH_PERMISSIVE] = NGX_STREAM_MESH_SILENCE,
        [NGX_MESH_STRICT] = NGX_STREAM_MESH_SILENCE_STRICT
    };

    protocols = ngx_mesh_inbound_find(mc->port);

    if (protocols == 0) {
        return ngx_stream_mesh_refuse(s, mc, "no container declares this port");
    }

    http = protocols & NGX_MESH_PROTOCOL_HTTP;
    tcp = protocols & NGX_MESH_PROTOCOL_TCP;

    rc = ngx_stream_mesh_peek(c, &kind);

    if (rc == NGX_ERROR) {
        return ngx_stream_mesh_refuse(s, mc, "the caller reset it");
    }

    if (rc == NGX_AGAIN && !c->read->timedout) {
        return ngx_stream_mesh_wait(c, http ? NGX_STREAM_MESH_HELLO : limits[ngx_mesh_settings.mode]);
    }

    if (c->read->timer_set) {
        ngx_del_timer(c->read);
    }

    c->read->timedout = 0;

    switch (kind) {

    case HELLO_TLS_MESH_TCP:
        if (!tcp) {
            return ngx_stream_mesh_refuse(s, mc, "the port speaks HTTP, the caller's sidecar TCP");
        }

        ctx->listener = ngx_stream_mesh_in_tcp_mtls;
        return NGX_OK;

    case HELLO_TLS:
        if (http) {
            ctx->listener = ngx_stream_mesh_in_http_mtls;

        } else if (ngx_mesh_settings.mode == NGX_MESH_STRICT) {
            ctx->listener = ngx_stream_mesh_in_tcp_mtls;

        } else {
            /* TLS of the application's own */
            ctx->listener = ngx_stream_mesh_in_tcp_plain;
        }

        return NGX_OK;

    default:
        if (http) {
            /* refused there in strict mode, in words */
            ctx->listener = ngx_stream_mesh_in_http_plain;
            return NGX_OK;
        }

        if (ngx_mesh_settings.mode == NGX_MESH_STRICT) {
            return ngx_stream_mesh_refuse(s, mc, "the caller speaks plaintext and mTLS is strict");
        }

        ctx->listener = ngx_stream_mesh_in_tcp_plain;
        return NGX_OK;
    }
}


static ngx_stream_mesh_ctx_t *
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


const char *
ngx_mesh_tcp_judge(ngx_connection_t *c, ngx_uint_t tls, ngx_str_t *by)
{
    ngx_str_t               id = ngx_null_string;
    ngx_mesh_connection_t  *mc;

    mc = ngx_mesh_connection(c);
    ngx_str_null(by);

    if (!(ngx_mesh_inbound_find(mc->port) & NGX_MESH_PROTOCOL_TCP)) {
        return "no container declares this port for TCP";
    }

    if (!tls && ngx_mesh_settings.mode == NGX_MESH_STRICT) {
        return "the caller speaks plaintext and mTLS is strict";
    }

    if (tls && ngx_mesh_connection_peer(c, &id) != NGX_OK) {
        return "the caller proved no SPIFFE ID";
    }

    return ngx_mesh_policy_allows(ngx_mesh_inbound_policy(mc->port), &id, NULL, by) ? NULL : ngx_stream_mesh_denied;
}


/* The same of a connection that this ends, if it may not be: what is only asked about is not counted. */
static const char *
ngx_stream_mesh_judge(ngx_connection_t *c, ngx_uint_t tls, ngx_str_t *by)
{
    const char  *why;

    why = ngx_mesh_tcp_judge(c, tls, by);

    if (why == ngx_stream_mesh_denied) {
        ngx_mesh_count_total(NGX_MESH_DENIED);
    }

    return why;
}


/* A right that is withdrawn ends connections, as the worker's shutdown does: nginx's proxy looks at `close` first. */
static void
ngx_stream_mesh_judge_carried(ngx_event_t *ev)
{
    const char                  *why;
    ngx_str_t                    by;
    ngx_queue_t                 *q, *next;
    ngx_connection_t            *c;
    ngx_mesh_connection_t       *mc;
    ngx_stream_mesh_ctx_t       *ctx;
    ngx_stream_mesh_srv_conf_t  *mscf;

    (void) ev;

    for (q = ngx_queue_head(&ngx_stream_mesh_carried); q != ngx_queue_sentinel(&ngx_stream_mesh_carried); q = next) {
        next = ngx_queue_next(q);

        ctx = ngx_queue_data(q, ngx_stream_mesh_ctx_t, queue);
        c = ctx->session->connection;
        mc = ngx_mesh_connection(c);
        mscf = ngx_stream_get_module_srv_conf(ctx->session, ngx_stream_mesh_module);
        why = ngx_stream_mesh_judge(c, mscf->tls, &by);

        if (why) {
            ngx_log_error(NGX_LOG_WARN, c->log, 0, "connection to \"%V\" is closed: %s", &mc->name, why);

            c->error = 1;
            c->close = 1;
            c->read->handler(c->read);
        }
    }
}


void
ngx_mesh_rights_changed(void)
{
    static ngx_event_t  judge = { .handler = ngx_stream_mesh_judge_carried };

    if (ngx_stream_mesh_carried.next) {
        judge.log = ngx_cycle->log;
        ngx_post_event(&judge, &ngx_posted_events);
    }
}


static void
ngx_stream_mesh_carried_end(void *data)
{
    ngx_stream_mesh_ctx_t  *ctx = data;

    ngx_queue_remove(&ctx->queue);
}


static ngx_int_t
ngx_stream_mesh_carry(ngx_stream_session_t *s, ngx_stream_mesh_ctx_t *ctx)
{
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(s->connection->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_stream_mesh_carried_end;
    cln->data = ctx;

    if (ngx_stream_mesh_carried.next == NULL) {
        ngx_queue_init(&ngx_stream_mesh_carried);
    }

    ctx->session = s;
    ngx_queue_insert_tail(&ngx_stream_mesh_carried, &ctx->queue);

    return NGX_OK;
}


/* In the servers that carry TCP: what was true when the connection was sorted must be true of this listener. */
static ngx_int_t
ngx_stream_mesh_admit(ngx_stream_session_t *s, ngx_stream_mesh_srv_conf_t *mscf, ngx_stream_mesh_ctx_t *ctx,
    ngx_mesh_connection_t *mc)
{
    ngx_str_t    by;
    const char  *why;

    if (mscf->role == NGX_MESH_INBOUND) {

        why = ngx_stream_mesh_judge(s->connection, mscf->tls, &by);
        if (why) {
            return ngx_stream_mesh_refuse(s, mc, why);
        }

        if (by.len) {
            ctx->policy.data = ngx_pstrdup(s->connection->pool, &by);
            if (ctx->policy.data == NULL) {
                return NGX_ERROR;
            }

            ctx->policy.len = by.len;
        }

        return ngx_stream_mesh_carry(s, ctx) == NGX_OK ? NGX_DECLINED : NGX_ERROR;
    }

    if (mc->cluster == NULL) {
        return NGX_DECLINED;
    }

    if (ngx_mesh_attempts_init(&ctx->attempts, mc->cluster, s->connection->pool) != NGX_OK) {
        return ngx_stream_mesh_refuse(s, mc, "no endpoint may be called");
    }

    ctx->balanced = 1;
    ctx->guards = mc->guards;
    ctx->attempts.tls = mscf->tls;

    return NGX_DECLINED;
}


static ngx_int_t
ngx_stream_mesh_sort(ngx_stream_session_t *s, ngx_stream_mesh_srv_conf_t *mscf, ngx_stream_mesh_ctx_t *ctx,
    ngx_mesh_connection_t *mc)
{
    return mscf->sort == NGX_MESH_OUTBOUND ? ngx_stream_mesh_sort_outbound(s, ctx, mc)
                                                  : ngx_stream_mesh_sort_inbound(s, ctx, mc);
}


/* What both phases begin with: nothing passes without a state, or without having been redirected. */
static ngx_int_t
ngx_stream_mesh_run(ngx_stream_session_t *s, ngx_stream_mesh_srv_conf_t *mscf, ngx_stream_mesh_step_pt step)
{
    ngx_stream_mesh_ctx_t  *ctx;
    ngx_mesh_connection_t  *mc;

    ctx = ngx_stream_mesh_ctx(s);
    mc = ngx_mesh_connection(s->connection);

    if (ctx == NULL || mc == NULL) {
        return NGX_ERROR;
    }

    if (!ngx_mesh_settings.ready) {
        return ngx_stream_mesh_refuse(s, mc, "the sidecar has no state yet");
    }

    if (mc->name.len == 0 || ngx_mesh_connection_is_local(mc)) {
        return ngx_stream_mesh_refuse(s, mc, "the connection was not redirected here");
    }

    return step(s, mscf, ctx, mc);
}


static ngx_int_t
ngx_stream_mesh_access_handler(ngx_stream_session_t *s)
{
    ngx_stream_mesh_srv_conf_t  *mscf;

    mscf = ngx_stream_get_module_srv_conf(s, ngx_stream_mesh_module);

    return mscf->sort == NGX_MESH_NONE ? NGX_DECLINED : ngx_stream_mesh_run(s, mscf, ngx_stream_mesh_sort);
}


/* After the TLS handshake, if there is one. */
static ngx_int_t
ngx_stream_mesh_preread_handler(ngx_stream_session_t *s)
{
    ngx_stream_mesh_srv_conf_t  *mscf;

    mscf = ngx_stream_get_module_srv_conf(s, ngx_stream_mesh_module);

    return mscf->role == NGX_MESH_NONE ? NGX_DECLINED : ngx_stream_mesh_run(s, mscf, ngx_stream_mesh_admit);
}


static ngx_int_t
ngx_stream_mesh_log_handler(ngx_stream_session_t *s)
{
    ngx_stream_mesh_ctx_t       *ctx;
    ngx_stream_mesh_srv_conf_t  *mscf;

    mscf = ngx_stream_get_module_srv_conf(s, ngx_stream_mesh_module);

    /* what was sorted and passed on has its session, or its requests, there */
    if (mscf->role == NGX_MESH_INBOUND || (mscf->sort == NGX_MESH_INBOUND && s->status != NGX_STREAM_OK)) {
        ngx_mesh_count_accepted(s->status);
    }

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

    if (ctx == NULL || ctx->guards == NULL) {
        return NGX_OK;
    }

    if (s->upstream && s->upstream->connected) {
        ngx_mesh_guards_end(ctx->guards, BREAKER_SUCCEEDED);

    } else {
        ngx_mesh_guards_end(ctx->guards, s->status == NGX_STREAM_BAD_GATEWAY ? BREAKER_FAILED : BREAKER_UNKNOWN);
    }

    return NGX_OK;
}


/* Counts what was carried since the last time: connections may last for days. */
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
 * The endpoint's sidecar takes a connection before it knows whether its application does, and closes it when that does
 * not. So an endpoint that ends a connection without a byte, before the caller ended its side, has failed.
 */
static ngx_int_t
ngx_stream_mesh_filter(ngx_stream_session_t *s, ngx_chain_t *in, ngx_uint_t from_upstream)
{
    ngx_int_t               rc;
    ngx_chain_t            *cl;
    ngx_stream_mesh_ctx_t  *ctx;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

    if (from_upstream && ctx && ctx->guards) {

        for (cl = in; cl; cl = cl->next) {

            if (ngx_buf_size(cl->buf) > 0) {
                ngx_mesh_guards_begun(ctx->guards);

            } else if (cl->buf->last_buf && s->upstream->received == 0 && !s->connection->read->eof) {
                ngx_mesh_guards_end(ctx->guards, BREAKER_FAILED);
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

    /* outside the mesh: where the application dialled */

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

        /* it is the last one chosen, too, hence there after it is freed */
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
ngx_stream_mesh_balance_secure(ngx_peer_connection_t *pc, void *data)
{
    ngx_stream_session_t   *s = data;
    ngx_stream_mesh_ctx_t  *ctx;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

    return ctx->balanced ? ngx_mesh_attempts_secure(&ctx->attempts, pc, 1) : NGX_ERROR;
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
    u->peer.set_session = ngx_stream_mesh_balance_secure;
    u->peer.save_session = ngx_mesh_save_no_session;
    u->peer.tries = ctx->balanced ? ngx_mesh_attempts_tries(&ctx->attempts) : 1;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_mesh_forward_get(ngx_peer_connection_t *pc, void *data)
{
    ngx_stream_session_t   *s = data;
    ngx_mesh_connection_t  *mc;

    mc = ngx_mesh_connection(s->connection);

    if (mc == NULL) {
        return NGX_ERROR;
    }

    return ngx_mesh_connection_forward(s->connection, pc, mc->port) == NGX_OK ? NGX_OK : NGX_BUSY;
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
ngx_stream_mesh_balance_init(ngx_conf_t *cf, ngx_stream_upstream_srv_conf_t *us)
{
    (void) cf;

    us->peer.init = ngx_stream_mesh_balance_init_peer;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_mesh_forward_init(ngx_conf_t *cf, ngx_stream_upstream_srv_conf_t *us)
{
    (void) cf;

    us->peer.init = ngx_stream_mesh_forward_init_peer;

    return NGX_OK;
}


/* `cmd->post`: what initialises the upstream. */
static char *
ngx_stream_mesh_upstream(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_upstream_srv_conf_t  *us;

    (void) conf;

    us = ngx_stream_conf_get_module_srv_conf(cf, ngx_stream_upstream_module);
    us->peer.init_upstream = cmd->offset ? ngx_stream_mesh_forward_init : ngx_stream_mesh_balance_init;
    us->flags = NGX_STREAM_UPSTREAM_CREATE;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_stream_mesh_variable_listener(ngx_stream_session_t *s, ngx_stream_variable_value_t *v, uintptr_t data)
{
    ngx_stream_mesh_ctx_t  *ctx;

    (void) data;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

    if (ctx == NULL || ctx->listener.len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->data = ctx->listener.data;
    v->len = ctx->listener.len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}


/* `data`: 0 original destination, 1 peer's ID, 2 and 3 log conditions, 4 upstream's ID, 5 cluster, 6 grant. */
static ngx_int_t
ngx_stream_mesh_variable(ngx_stream_session_t *s, ngx_stream_variable_value_t *v, uintptr_t data)
{
    ngx_str_t               value = ngx_null_string;
    ngx_mesh_connection_t  *mc;
    ngx_stream_mesh_ctx_t  *ctx;

    switch (data) {

    case 0:
        mc = ngx_mesh_connection(s->connection);
        if (mc == NULL) {
            return NGX_ERROR;
        }

        value = mc->name;
        break;

    case 1:
        if (s->connection->ssl) {
            (void) ngx_mesh_connection_peer(s->connection, &value);
        }

        break;

    case 2:
    case 3:
        if (ngx_mesh_settings.json_log == data - 2) {
            ngx_str_set(&value, "1");
        }

        break;

    case 4:
    case 5:
        ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

        if (ctx == NULL || !ctx->balanced) {
            break;
        }

        if (data == 5) {
            value = ctx->attempts.cluster->node.str;

        } else if (ctx->attempts.tls) {
            value = ctx->attempts.last_id;
        }

        break;

    default:
        ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

        if (ctx) {
            value = ctx->policy;
        }
    }

    v->data = value.data;
    v->len = value.len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = value.len == 0;

    return NGX_OK;
}


static ngx_stream_variable_t  ngx_stream_mesh_variables[] = {
    { ngx_string("mesh_listener"), NULL, ngx_stream_mesh_variable_listener, 0, 0, 0 },
    { ngx_string("mesh_original_dst"), NULL, ngx_stream_mesh_variable, 0, 0, 0 },
    { ngx_string("mesh_peer_id"), NULL, ngx_stream_mesh_variable, 1, 0, 0 },
    { ngx_string("mesh_log_default"), NULL, ngx_stream_mesh_variable, 2, 0, 0 },
    { ngx_string("mesh_log_json"), NULL, ngx_stream_mesh_variable, 3, 0, 0 },
    { ngx_string("mesh_upstream_id"), NULL, ngx_stream_mesh_variable, 4, NGX_STREAM_VAR_NOCACHEABLE, 0 },
    { ngx_string("mesh_cluster"), NULL, ngx_stream_mesh_variable, 5, 0, 0 },
    { ngx_string("mesh_policy"), NULL, ngx_stream_mesh_variable, 6, NGX_STREAM_VAR_NOCACHEABLE, 0 },
    ngx_stream_null_variable
};


static ngx_int_t
ngx_stream_mesh_preconfiguration(ngx_conf_t *cf)
{
    ngx_stream_variable_t  *var, *v;

    for (v = ngx_stream_mesh_variables; v->name.len; v++) {
        var = ngx_stream_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_mesh_postconfiguration(ngx_conf_t *cf)
{
    ngx_uint_t                     i;
    ngx_stream_handler_pt         *h;
    ngx_stream_ssl_srv_conf_t     *sscf;
    ngx_stream_mesh_srv_conf_t    *mscf;
    ngx_stream_core_srv_conf_t   **cscfp;
    ngx_stream_core_main_conf_t   *cmcf;

    cmcf = ngx_stream_conf_get_module_main_conf(cf, ngx_stream_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_STREAM_ACCESS_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_stream_mesh_access_handler;

    h = ngx_array_push(&cmcf->phases[NGX_STREAM_PREREAD_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_stream_mesh_preread_handler;

    h = ngx_array_push(&cmcf->phases[NGX_STREAM_LOG_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_stream_mesh_log_handler;

    ngx_stream_mesh_next_filter = ngx_stream_top_filter;
    ngx_stream_top_filter = ngx_stream_mesh_filter;

    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        mscf = cscfp[i]->ctx->srv_conf[ngx_stream_mesh_module.ctx_index];
        sscf = cscfp[i]->ctx->srv_conf[ngx_stream_ssl_module.ctx_index];

        if (mscf->tls && sscf->ssl.ctx && ngx_mesh_identity_serve(sscf->ssl.ctx, 1) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static void *
ngx_stream_mesh_create_srv_conf(ngx_conf_t *cf)
{
    ngx_stream_mesh_srv_conf_t  *conf;

    conf = ngx_palloc(cf->pool, sizeof(ngx_stream_mesh_srv_conf_t));
    if (conf) {
        conf->sort = NGX_CONF_UNSET_UINT;
        conf->role = NGX_CONF_UNSET_UINT;
        conf->tls = NGX_CONF_UNSET;
    }

    return conf;
}


static char *
ngx_stream_mesh_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_stream_mesh_srv_conf_t  *prev = parent;
    ngx_stream_mesh_srv_conf_t  *conf = child;

    (void) cf;

    ngx_conf_merge_uint_value(conf->sort, prev->sort, NGX_MESH_NONE);
    ngx_conf_merge_uint_value(conf->role, prev->role, NGX_MESH_NONE);
    ngx_conf_merge_value(conf->tls, prev->tls, 0);

    return NGX_CONF_OK;
}


static ngx_command_t  ngx_stream_mesh_commands[] = {

    { ngx_string("mesh_sort"),
      NGX_STREAM_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_STREAM_SRV_CONF_OFFSET,
      offsetof(ngx_stream_mesh_srv_conf_t, sort),
      ngx_mesh_directions },

    { ngx_string("mesh_role"),
      NGX_STREAM_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_STREAM_SRV_CONF_OFFSET,
      offsetof(ngx_stream_mesh_srv_conf_t, role),
      ngx_mesh_directions },

    { ngx_string("mesh_tls"),
      NGX_STREAM_MAIN_CONF|NGX_STREAM_SRV_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_STREAM_SRV_CONF_OFFSET,
      offsetof(ngx_stream_mesh_srv_conf_t, tls),
      NULL },

    { ngx_string("mesh_balance"),
      NGX_STREAM_UPS_CONF|NGX_CONF_NOARGS,
      ngx_stream_mesh_upstream,
      0,
      0,
      NULL },

    { ngx_string("mesh_forward"),
      NGX_STREAM_UPS_CONF|NGX_CONF_NOARGS,
      ngx_stream_mesh_upstream,
      0,
      1,
      NULL },

    ngx_null_command
};


static ngx_stream_module_t  ngx_stream_mesh_module_ctx = {
    ngx_stream_mesh_preconfiguration,
    ngx_stream_mesh_postconfiguration,
    NULL,
    NULL,
    ngx_stream_mesh_create_srv_conf,
    ngx_stream_mesh_merge_srv_conf
};


ngx_module_t  ngx_stream_mesh_module = {
    NGX_MODULE_V1,
    &ngx_stream_mesh_module_ctx,
    ngx_stream_mesh_commands,
    NGX_STREAM_MODULE,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NGX_MODULE_V1_PADDING
};
