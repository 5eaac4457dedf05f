/*
 * Sorting: which internal listener a connection is passed to. Outgoing, the address that was dialled decides; incoming,
 * the container port and the first bytes.
 */

#include "ngx_stream_mesh.h"

#include "ngx_mesh_destinations.h"
#include "ngx_mesh_inbound.h"
#include "ngx_mesh_log.h"
#include "ngx_mesh_route.h"
#include "protocol_detection.h"

/*
 * Milliseconds for which a caller may be silent before it is taken for plaintext of a protocol whose server speaks
 * first. Sidecars send their ClientHello at once; this leaves room for a lost packet.
 */
#define NGX_STREAM_MESH_SILENCE         1000

/* The same where mTLS is off: only while the mode changes does a sidecar still speak TLS. */
#define NGX_STREAM_MESH_SILENCE_OFF     50

/*
 * The same in strict mode, where a silent caller is refused: a plaintext caller should learn of it, but not in haste.
 */
#define NGX_STREAM_MESH_SILENCE_STRICT  5000

/* Milliseconds to wait for the first bytes where the caller has to speak first. */
#define NGX_STREAM_MESH_FIRST_BYTES     60000

/* A TLS record of the largest size. */
#define NGX_STREAM_MESH_PEEK            (16384 + 5)

/* The internal listeners of nginx.conf. */
static ngx_str_t  ngx_stream_mesh_out_http = ngx_string("127.0.0.1:8888");
static ngx_str_t  ngx_stream_mesh_in_http_mtls = ngx_string("127.0.0.1:8889");
static ngx_str_t  ngx_stream_mesh_in_http_plain = ngx_string("127.0.0.1:8890");
static ngx_str_t  ngx_stream_mesh_out_tcp_mtls = ngx_string("127.0.0.1:8891");
static ngx_str_t  ngx_stream_mesh_out_tcp_plain = ngx_string("127.0.0.1:8892");
static ngx_str_t  ngx_stream_mesh_in_tcp_mtls = ngx_string("127.0.0.1:8893");
static ngx_str_t  ngx_stream_mesh_in_tcp_plain = ngx_string("127.0.0.1:8894");

/* How the log names what a caller sent. */
static const char  *ngx_stream_mesh_kinds[] = {
    [PROTOCOL_INCOMPLETE] = "nothing that tells",
    [PROTOCOL_PLAINTEXT] = "plaintext",
    [PROTOCOL_TLS] = "a TLS ClientHello",
    [PROTOCOL_TLS_MESH_TCP] = "a TLS ClientHello that offers " PROTOCOL_ALPN_TCP
};

static ngx_int_t ngx_stream_mesh_sort_outbound(ngx_stream_session_t *s, ngx_stream_mesh_ctx_t *ctx,
    ngx_mesh_connection_t *mc);
static ngx_int_t ngx_stream_mesh_sort_inbound(ngx_stream_session_t *s, ngx_stream_mesh_ctx_t *ctx,
    ngx_mesh_connection_t *mc);


ngx_int_t
ngx_stream_mesh_sort_handler(ngx_stream_session_t *s)
{
    ngx_int_t                    rc;
    ngx_mesh_connection_t       *mc;
    ngx_stream_mesh_ctx_t       *ctx;
    ngx_stream_mesh_srv_conf_t  *mscf;

    mscf = ngx_stream_get_module_srv_conf(s, ngx_stream_mesh_module);

    if (mscf->sort == NGX_MESH_NONE) {
        return NGX_DECLINED;
    }

    rc = ngx_stream_mesh_check(s, &ctx, &mc);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = mscf->sort == NGX_MESH_OUTBOUND ? ngx_stream_mesh_sort_outbound(s, ctx, mc)
                                         : ngx_stream_mesh_sort_inbound(s, ctx, mc);

    if (rc == NGX_OK) {
        ngx_mesh_log_decision(s->connection->log, "the connection to \"%V\" is passed to the listener %V", &mc->name,
                              &ctx->listener);
    }

    return rc;
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

        ngx_mesh_log_decision(s->connection->log, "the address \"%V\" is no destination of the mesh", &mc->name);

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

    /* The attempts hold a reference to the cluster. */
    mc->cluster = route.cluster;
    mc->tickets = route.tickets;

    ctx->listener = ctx->attempts.tls ? ngx_stream_mesh_out_tcp_mtls : ngx_stream_mesh_out_tcp_plain;

    return NGX_OK;
}


/* Looks at what the caller has sent without taking it. NGX_AGAIN: it has not sent enough to tell. */
static ngx_int_t
ngx_stream_mesh_peek(ngx_connection_t *c, protocol_kind *kind)
{
    ssize_t        n;
    static u_char  data[NGX_STREAM_MESH_PEEK];

    n = recv(c->fd, data, sizeof(data), MSG_PEEK);

    if (n == -1 && ngx_socket_errno != NGX_EAGAIN && ngx_socket_errno != NGX_EINTR) {
        return NGX_ERROR;
    }

    if (n == 0) {
        /* The caller closed its side without a word, which the application should see. */
        *kind = PROTOCOL_PLAINTEXT;

    } else {
        *kind = n > 0 ? protocol_detect(data, n) : PROTOCOL_INCOMPLETE;
    }

    return *kind == PROTOCOL_INCOMPLETE ? NGX_AGAIN : NGX_OK;
}


/*
 * A connection whose caller is still silent is the first to be closed when connections run short or the worker ends:
 * otherwise anybody could use up the sidecar's connections by silence.
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
    protocol_kind         kind;
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
        return ngx_stream_mesh_wait(c, http ? NGX_STREAM_MESH_FIRST_BYTES : limits[ngx_mesh_settings.mode]);
    }

    if (c->read->timer_set) {
        ngx_del_timer(c->read);
    }

    c->read->timedout = 0;

    ngx_mesh_log_decision(c->log, "protocol detection on the port %ui: the caller sent %s", (ngx_uint_t) mc->port,
                          ngx_stream_mesh_kinds[kind]);

    switch (kind) {

    case PROTOCOL_TLS_MESH_TCP:
        if (!tcp) {
            return ngx_stream_mesh_refuse(s, mc, "the port speaks HTTP, the caller's sidecar TCP");
        }

        ctx->listener = ngx_stream_mesh_in_tcp_mtls;
        return NGX_OK;

    case PROTOCOL_TLS:
        if (http) {
            ctx->listener = ngx_stream_mesh_in_http_mtls;

        } else if (ngx_mesh_settings.mode == NGX_MESH_STRICT) {
            ctx->listener = ngx_stream_mesh_in_tcp_mtls;

        } else {
            /* The application itself speaks TLS. */
            ctx->listener = ngx_stream_mesh_in_tcp_plain;
        }

        return NGX_OK;

    default:
        if (http) {
            /* In strict mode it is refused there, with an HTTP answer that says why. */
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
