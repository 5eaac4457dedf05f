/*
 * HTTP side of the module.
 *
 * Directives: `mesh_balance` and `mesh_forward` in an upstream (before `keepalive`), `mesh_tls` in a server, in a server
 * or location `mesh_role outbound|inbound` (what the tables alone decide, Lua is not asked) and `mesh_count on`.
 * Variables: $mesh_original_dst, $mesh_peer_id, $mesh_policy (the TrafficTarget that allowed the request),
 * $mesh_cluster, $mesh_upstream_id, $mesh_upstream (http), $mesh_grpc_upstream, $mesh_refused, $mesh_log_default and
 * $mesh_log_json (for access_log's `if=`), $mesh_log_path, $mesh_log_authority and $mesh_log_user_agent (what the
 * request has, in UTF-8 whatever it was).
 * The functions marked FFI are called from Lua.
 */

#include <ngx_http.h>

#include "ngx_mesh.h"
#include "ngx_mesh_report.h"
#include "text.h"

/* Time between two reads of an upgraded connection or an event stream; other requests have proxy_read_timeout. */
#define NGX_HTTP_MESH_LONG_TIMEOUT  (24 * 3600 * 1000)

/* Kept connections that one request may find closed before that counts as a try. */
#define NGX_HTTP_MESH_STALE_MAX     5

typedef struct {
    ngx_mesh_attempts_t   attempts;
    ngx_uint_t            balanced;     /* attempts is in use */
    ngx_int_t           (*process_header)(ngx_http_request_t *r);
    ngx_int_t           (*reinit_request)(ngx_http_request_t *r);
    ngx_uint_t            stale;        /* kept connections that failed */
    void                (*finalize_request)(ngx_http_request_t *r, ngx_int_t rc);
    ngx_mesh_guards_t    *guards;       /* NULL: no breaker asks for the outcome */
    ngx_int_t             ended;        /* what the upstream was finalized with */
    in_port_t             forward_port; /* 0: the port the caller dialled */
    off_t                 body_limit;   /* 0: none */
    off_t                 body_seen;
    ngx_uint_t            denied;       /* by access rules, for good */
    ngx_uint_t            limited;      /* its rate limits said: */
    ngx_int_t             wait;         /* milliseconds; NGX_BUSY: not at all */
    ngx_str_t             limited_by;
    ngx_str_t             policy;       /* the grant that allowed it; in the pool */
    ngx_uint_t            role;         /* set when requests are reported */
    ngx_http_mesh_trace_t  *trace;      /* NULL: not sampled */
    ngx_str_t             reason;       /* why it was refused; in the pool */
} ngx_http_mesh_ctx_t;

typedef struct {
    ngx_flag_t            tls;
} ngx_http_mesh_srv_conf_t;

typedef struct {
    ngx_uint_t            role;
    ngx_flag_t            count;
} ngx_http_mesh_loc_conf_t;

static ngx_http_output_header_filter_pt  ngx_http_mesh_next_header_filter;
static ngx_http_request_body_filter_pt   ngx_http_mesh_next_request_body_filter;


static ngx_http_mesh_ctx_t *
ngx_http_mesh_ctx(ngx_http_request_t *r)
{
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx == NULL) {
        ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_mesh_ctx_t));
        if (ctx) {
            ngx_http_set_ctx(r, ctx, ngx_http_mesh_module);
        }
    }

    return ctx;
}


/* Marks the context for ngx_http_mesh_reported. */
static void
ngx_http_mesh_keep(void *data)
{
    (void) data;
}


/* The context of a request that is looked at, also when it was redirected to words of ours (@refused). */
static ngx_http_mesh_ctx_t *
ngx_http_mesh_reported(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t   *cln;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx && ctx->role) {
        return ctx;
    }

    for (cln = r->internal ? r->pool->cleanup : NULL; cln; cln = cln->next) {
        if (cln->handler == ngx_http_mesh_keep) {
            return cln->data;
        }
    }

    return NULL;
}


/* FFI. The length of the address that the caller dialled ("ip:port"), or 0 when the connection was not redirected. */
size_t
ngx_http_mesh_ffi_original(ngx_http_request_t *r, const u_char **data, ngx_uint_t *port)
{
    ngx_mesh_connection_t  *mc;

    mc = ngx_mesh_connection(r->connection);
    if (mc == NULL) {
        return 0;
    }

    *data = mc->name.data;
    *port = mc->port;

    return mc->name.len;
}


/* FFI. 1: the client proved the SPIFFE ID; 0: it speaks TLS and proved none; -1: plaintext. */
int
ngx_http_mesh_ffi_peer(ngx_http_request_t *r, const u_char **data, size_t *len)
{
    ngx_str_t  id;

    if (!ngx_mesh_connection_is_tls(r->connection)) {
        return -1;
    }

    if (ngx_mesh_connection_peer(r->connection, &id) != NGX_OK) {
        return 0;
    }

    *data = id.data;
    *len = id.len;

    return 1;
}


/*
 * FFI. Many applications fold "-" and other signs of header names to "_", so that the peer's identity could be claimed
 * under another spelling. All spellings become the one that is replaced by what the peer proved.
 */
void
ngx_http_mesh_ffi_disown_identity(ngx_http_request_t *r)
{
    size_t            i;
    ngx_uint_t        n;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;
    static ngx_str_t  name = ngx_string("x-forwarded-client-spiffe-id");

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (n = 0; n < part->nelts; n++) {

            if (h[n].key.len != name.len) {
                continue;
            }

            for (i = 0; i < name.len; i++) {
                if (h[n].lowcase_key[i] != name.data[i] && (name.data[i] != '-' || isalnum(h[n].lowcase_key[i]))) {
                    break;
                }
            }

            if (i == name.len) {
                h[n].key = name;
                h[n].lowcase_key = name.data;
                h[n].hash = ngx_hash_key(name.data, name.len);
            }
        }
    }
}


/* FFI. Why the request is refused. */
void
ngx_http_mesh_ffi_refused(ngx_http_request_t *r, const u_char *reason, size_t len)
{
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx && ctx->role) {
        ctx->reason.data = ngx_pnalloc(r->pool, len);

        if (ctx->reason.data) {
            ngx_memcpy(ctx->reason.data, reason, len);
            ctx->reason.len = len;
        }
    }
}


/* ngx_mesh_route, and then an endpoint can be asked for. NGX_DECLINED also when no service has the address. */
static ngx_int_t
ngx_http_mesh_select(ngx_http_request_t *r, ngx_mesh_route_t *route)
{
    ngx_int_t                rc;
    ngx_http_mesh_ctx_t     *ctx;
    ngx_mesh_connection_t   *mc;
    ngx_mesh_destination_t  *d;

    ctx = ngx_http_mesh_ctx(r);
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    mc = ngx_mesh_connection(r->connection);
    d = mc ? ngx_mesh_destination_find(&mc->name) : NULL;

    if (d == NULL || !(d->protocols & NGX_MESH_PROTOCOL_HTTP)) {
        return NGX_DECLINED;
    }

    rc = ngx_mesh_route(route, d, r, r->pool);
    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_mesh_attempts_init(&ctx->attempts, route->cluster, r->pool) != NGX_OK) {
        return NGX_ERROR;
    }

    ctx->balanced = 1;
    ctx->guards = route->guards;

    return NGX_OK;
}


/* FFI. ngx_http_mesh_select; `name`, if it is of use, is valid until tables change. */
ngx_int_t
ngx_http_mesh_ffi_select(ngx_http_request_t *r, const u_char **name, size_t *len)
{
    ngx_int_t         rc;
    ngx_mesh_route_t  route;

    rc = ngx_http_mesh_select(r, &route);

    if (rc == NGX_BUSY || rc == NGX_ABORT) {
        *name = route.name->data;
        *len = route.name->len;
    }

    return rc;
}


/* FFI. The upstream with mesh_forward goes to this port of the pod, not to the one that was dialled. */
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


/* FFI. Bodies over `limit` bytes end in 413. NGX_DECLINED: the announced length is over it already. */
ngx_int_t
ngx_http_mesh_ffi_body_limit(ngx_http_request_t *r, int64_t limit)
{
    ngx_http_mesh_ctx_t  *ctx;

    if (r->headers_in.content_length_n > limit) {
        return NGX_DECLINED;
    }

    if (r->headers_in.content_length_n >= 0) {
        return NGX_OK;
    }

    ctx = ngx_http_mesh_ctx(r);
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    ctx->body_limit = limit;

    return NGX_OK;
}


ngx_mesh_policy_t *
ngx_http_mesh_policy(ngx_http_request_t *r, ngx_str_t *id)
{
    ngx_mesh_connection_t  *mc;

    mc = ngx_mesh_connection(r->connection);

    if (!ngx_mesh_connection_is_tls(r->connection) || ngx_mesh_connection_peer(r->connection, id) != NGX_OK) {
        ngx_str_null(id);
    }

    return mc ? ngx_mesh_inbound_policy(mc->port) : NULL;
}


/* FFI. Whether the port's access rules allow the request; then it has the name of the grant. */
ngx_uint_t
ngx_http_mesh_ffi_allowed(ngx_http_request_t *r)
{
    ngx_str_t             id, by;
    ngx_mesh_policy_t    *policy;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx && ctx->denied) {
        return 0;
    }

    policy = ngx_http_mesh_policy(r, &id);

    if (!ngx_mesh_policy_allows(policy, &id, r, &by)) {
        /* Lua asks once more, to say so: expressions that take long are not tried twice */
        ctx = ngx_http_mesh_ctx(r);
        if (ctx) {
            ctx->denied = 1;
        }

        return 0;
    }

    if (by.len == 0) {
        return 1;
    }

    /* the policy may be gone when the request is logged */

    ctx = ngx_http_mesh_ctx(r);
    if (ctx == NULL) {
        return 0;
    }

    ctx->policy.data = ngx_pstrdup(r->pool, &by);
    if (ctx->policy.data == NULL) {
        return 0;
    }

    ctx->policy.len = by.len;

    return 1;
}


/* FFI. The length of the name of the grant that allowed the request; 0: none was needed, or none did. */
size_t
ngx_http_mesh_ffi_granted(ngx_http_request_t *r, const u_char **data)
{
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);
    if (ctx == NULL) {
        return 0;
    }

    *data = ctx->policy.data;

    return ctx->policy.len;
}


/*
 * FFI. Milliseconds that the request's rate limits let it wait; negative: it is over one. When it is not 0, `name` is the
 * RateLimit's. A request counts once.
 */
ngx_int_t
ngx_http_mesh_ffi_limit(ngx_http_request_t *r, const u_char **name, size_t *len)
{
    ngx_int_t             wait;
    ngx_str_t             id, by;
    ngx_mesh_policy_t    *policy;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx == NULL || !ctx->limited) {
        policy = ngx_http_mesh_policy(r, &id);
        wait = ngx_mesh_policy_wait(policy, &id, r, &by);

        if (wait == 0) {
            return 0;
        }

        /* the policy may be gone when this is asked again */

        ctx = ngx_http_mesh_ctx(r);
        if (ctx == NULL) {
            return NGX_BUSY;
        }

        ctx->limited_by.data = ngx_pstrdup(r->pool, &by);
        ctx->limited_by.len = ctx->limited_by.data ? by.len : 0;
        ctx->wait = wait;
        ctx->limited = 1;
    }

    *name = ctx->limited_by.data;
    *len = ctx->limited_by.len;

    return ctx->wait;
}


/* Whether the request is one of the application to a service whose cluster is loaded; then an endpoint is chosen. */
static ngx_uint_t
ngx_http_mesh_route(ngx_http_request_t *r)
{
    ngx_mesh_route_t  route;

    return ngx_http_mesh_select(r, &route) == NGX_OK;
}


/* Whether the request from the wire may pass at once. */
static ngx_uint_t
ngx_http_mesh_admit(ngx_http_request_t *r)
{
    off_t                   body_limit = ngx_mesh_settings.body_limit;
    size_t                  len;
    const u_char           *name;
    ngx_str_t               id;
    ngx_mesh_connection_t  *mc;

    mc = ngx_mesh_connection(r->connection);

    if (mc == NULL || !ngx_mesh_settings.ready || !ngx_mesh_inbound_find(mc->port)) {
        return 0;
    }

    if (r->connection->ssl ? ngx_mesh_connection_peer(r->connection, &id) != NGX_OK
                           : ngx_mesh_settings.mode == NGX_MESH_STRICT)
    {
        return 0;
    }

    ngx_http_mesh_ffi_disown_identity(r);

    /* limits come last: whoever is refused anyway is not counted */

    return ngx_http_mesh_ffi_allowed(r)
           && (body_limit == 0 || ngx_http_mesh_ffi_body_limit(r, body_limit) == NGX_OK)
           && ngx_http_mesh_ffi_limit(r, &name, &len) == 0;
}


/* Before the request is judged: what is refused is reported too. */
static void
ngx_http_mesh_watch(ngx_http_request_t *r, ngx_uint_t role)
{
    ngx_pool_cleanup_t   *cln;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_mesh_ctx(r);
    cln = ngx_pool_cleanup_add(r->pool, 0);

    if (ctx == NULL || cln == NULL || ctx->role) {
        return;
    }

    cln->handler = ngx_http_mesh_keep;
    cln->data = ctx;
    ctx->role = role;

    if (ngx_mesh_reports.tracing) {
        ctx->trace = ngx_http_mesh_trace(r);
    }
}


/*
 * Says yes where the tables alone say so; all else, refusals and their words included, is Lua's, whose handler comes
 * later in this phase and is skipped after a yes.
 */
static ngx_int_t
ngx_http_mesh_access_handler(ngx_http_request_t *r)
{
    ngx_uint_t                  yes;
    ngx_http_mesh_loc_conf_t   *mlcf;
    ngx_http_core_main_conf_t  *cmcf;

    mlcf = ngx_http_get_module_loc_conf(r, ngx_http_mesh_module);

    if (ngx_mesh_reports.on && mlcf->role != NGX_MESH_NONE) {
        ngx_http_mesh_watch(r, mlcf->role);
    }

    switch (mlcf->role) {

    case NGX_MESH_OUTBOUND:
        yes = ngx_http_mesh_route(r);
        break;

    case NGX_MESH_INBOUND:
        yes = ngx_http_mesh_admit(r);
        break;

    default:
        yes = 0;
    }

    if (yes) {
        /* nginx goes on with the handler after this one: the first of the next phase */
        cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);
        r->phase_handler = cmcf->phase_engine.handlers[r->phase_handler].next - 1;
    }

    return NGX_DECLINED;
}


const ngx_str_t *
ngx_http_mesh_field(ngx_list_t *fields, const ngx_str_t *name)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    for (part = &fields->part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (h[i].key.len == name->len && ngx_strncasecmp(h[i].key.data, name->data, name->len) == 0) {
                return &h[i].value;
            }
        }
    }

    return NULL;
}


/* Milliseconds since the request began, by a clock that may have been set back. */
int64_t
ngx_http_mesh_elapsed(ngx_http_request_t *r)
{
    int64_t      ms;
    ngx_time_t  *now;

    now = ngx_timeofday();
    ms = (int64_t) (now->sec - r->start_sec) * 1000 + (int64_t) now->msec - (int64_t) r->start_msec;

    return ngx_max(ms, 0);
}


/* Whether the time that a gRPC caller gave is over, but for what it may have been on its way. */
static ngx_uint_t
ngx_http_mesh_grpc_late(ngx_http_request_t *r)
{
    int64_t           n, us;
    const ngx_str_t  *timeout;
    static ngx_str_t  name = ngx_string("grpc-timeout");

    timeout = ngx_http_mesh_field(&r->headers_in.headers, &name);

    /* at most eight digits and a unit */
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
 * DEADLINE_EXCEEDED, INTERNAL and UNAVAILABLE are what 5xx is to HTTP. A caller whose deadline has passed leaves without
 * waiting for a status.
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


static ngx_uint_t
ngx_http_mesh_status(ngx_http_request_t *r)
{
    return r->err_status ? r->err_status : r->headers_out.status;
}


/* How the request ended for whoever counts failures of endpoints. */
static breaker_outcome
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


static void
ngx_http_mesh_tell(ngx_http_request_t *r)
{
    ngx_http_mesh_ctx_t    *ctx;
    ngx_http_mesh_facts_t   facts;

    ctx = ngx_http_mesh_reported(r);

    if (ctx == NULL || (ctx->trace == NULL && !ngx_mesh_tap_on())) {
        return;
    }

    ngx_memzero(&facts, sizeof(ngx_http_mesh_facts_t));

    facts.role = ctx->role;
    facts.trace = ctx->trace;
    facts.status = ngx_http_mesh_status(r);
    facts.policy = ctx->policy;
    facts.limited_by = ctx->limited_by;
    facts.reason = ctx->reason;

    if (ctx->role == NGX_MESH_INBOUND) {
        facts.tls = r->connection->ssl != NULL;

        if (facts.tls && ngx_mesh_connection_peer(r->connection, &facts.peer_id) != NGX_OK) {
            ngx_str_null(&facts.peer_id);
        }

    } else if (ctx->balanced) {
        facts.tls = ctx->attempts.tls;
        facts.cluster = ctx->attempts.cluster->node.str;

        if (facts.tls) {
            facts.peer_id = ctx->attempts.last_id;
        }
    }

    facts.tapped = ngx_http_mesh_tapped(r, &facts);

    if (facts.trace || facts.tapped) {
        ngx_http_mesh_report(r, &facts);
    }
}


/* The time is that to the end of the answer. */
static ngx_int_t
ngx_http_mesh_log_handler(ngx_http_request_t *r)
{
    ngx_http_mesh_ctx_t       *ctx;
    ngx_http_mesh_loc_conf_t  *mlcf;

    if (ngx_mesh_reports.on) {
        ngx_http_mesh_tell(r);
    }

    mlcf = ngx_http_get_module_loc_conf(r, ngx_http_mesh_module);

    if (!mlcf->count) {
        return NGX_OK;
    }

    if (mlcf->role == NGX_MESH_INBOUND) {
        ngx_mesh_count_received(ngx_http_mesh_status(r), ngx_http_mesh_elapsed(r));
        return NGX_OK;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx && ctx->balanced && ctx->attempts.last) {
        ngx_mesh_count_response(ctx->attempts.last, ngx_http_mesh_status(r), ngx_http_mesh_elapsed(r));
    }

    if (ctx && ctx->guards) {
        ngx_mesh_guards_end(ctx->guards, ngx_http_mesh_outcome(r, ctx));
    }

    return NGX_OK;
}


/* Bodies without an announced length are counted as they come. */
static ngx_int_t
ngx_http_mesh_request_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_chain_t          *cl;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx && ctx->body_limit) {

        for (cl = in; cl; cl = cl->next) {
            ctx->body_seen += ngx_buf_size(cl->buf);
        }

        if (ctx->body_seen > ctx->body_limit) {
            ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "client sent a body of more than %O bytes",
                          ctx->body_limit);
            return NGX_HTTP_REQUEST_ENTITY_TOO_LARGE;
        }
    }

    return ngx_http_mesh_next_request_body_filter(r, in);
}


static ngx_int_t
ngx_http_mesh_header_filter(ngx_http_request_t *r)
{
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx && ctx->balanced) {
        ngx_mesh_attempts_first_byte(&ctx->attempts);

        if (ctx->guards && ngx_http_mesh_outcome(r, ctx) == BREAKER_SUCCEEDED) {
            ngx_mesh_guards_begun(ctx->guards);
        }
    }

    return ngx_http_mesh_next_header_filter(r);
}


/*
 * What nginx may repeat. It repeats all but POST, PATCH and LOCK; what a method means that it does not know is not for it
 * to guess.
 */
static void
ngx_http_mesh_repeat_only_known(ngx_http_request_t *r)
{
    if (r->method == NGX_HTTP_UNKNOWN) {
        r->method = NGX_HTTP_LOCK;
    }
}


/*
 * Ends a try. That a kept connection fails is none for nginx, which would try all there are: an application that reads a
 * request and then closes could get it a hundred times.
 */
static void
ngx_http_mesh_tried(ngx_http_request_t *r, ngx_peer_connection_t *pc, ngx_uint_t state)
{
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
        /* it is the last one chosen, too, hence still there */
        ngx_mesh_count_number(e, NGX_MESH_HTTP_SENT, r->upstream->state->bytes_sent);
        ngx_mesh_count_number(e, NGX_MESH_HTTP_RECEIVED, r->upstream->state->bytes_received);
        ngx_mesh_count_number(e, NGX_MESH_HTTP_FAILS, failed);
    }

    ngx_http_mesh_tried(r, pc, state);
}


static ngx_int_t
ngx_http_mesh_balance_secure(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_request_t   *r = data;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    return ngx_mesh_attempts_secure(&ctx->attempts, pc, 0);
}


static ngx_uint_t
ngx_http_mesh_is_long(ngx_http_request_t *r)
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


/* Upgraded connections and event streams may be silent for long. */
static ngx_int_t
ngx_http_mesh_lengthen_timeouts(ngx_http_request_t *r)
{
    ngx_http_upstream_conf_t  *conf;

    if (!ngx_http_mesh_is_long(r)) {
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


/* Whether the answer is the endpoint's sidecar's own, because its application did not answer. */
static ngx_uint_t
ngx_http_mesh_is_refusal(ngx_http_upstream_t *u)
{
    static ngx_str_t   name = ngx_string("x-nginx-mesh-refused");

    return u->headers_in.status_n == NGX_HTTP_BAD_GATEWAY && ngx_http_mesh_field(&u->headers_in.headers, &name);
}


static ngx_int_t ngx_http_mesh_process_header(ngx_http_request_t *r);


/* The protocol's module changes its handler between the parts of a header and before another attempt. */
static void
ngx_http_mesh_watch_header(ngx_http_request_t *r, ngx_http_mesh_ctx_t *ctx)
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

    ngx_http_mesh_watch_header(r, ctx);

    return rc;
}


/* An endpoint whose application refuses is like one that refuses itself: another is tried, where that is allowed. */
static ngx_int_t
ngx_http_mesh_process_header(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    rc = ctx->process_header(r);

    ngx_http_mesh_watch_header(r, ctx);

    if (rc == NGX_OK && ngx_http_mesh_is_refusal(r->upstream)) {
        ctx->attempts.refused = 1;
        return NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }

    return rc;
}


/* An answer that breaks off after its header shows in nothing else. */
static void
ngx_http_mesh_finalize_request(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_http_mesh_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);
    ctx->ended = rc;

    ctx->finalize_request(r, rc);
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

    u->peer.data = r;
    u->peer.get = ngx_http_mesh_balance_get;
    u->peer.free = ngx_http_mesh_balance_free;
    u->peer.set_session = ngx_http_mesh_balance_secure;
    u->peer.save_session = ngx_mesh_save_no_session;
    u->peer.tries = ngx_mesh_attempts_tries(&ctx->attempts);

    ngx_http_mesh_watch_header(r, ctx);

    ctx->reinit_request = u->reinit_request;
    u->reinit_request = ngx_http_mesh_reinit_request;

    if (ctx->guards) {
        ctx->finalize_request = u->finalize_request;
        u->finalize_request = ngx_http_mesh_finalize_request;
    }

    ngx_http_mesh_repeat_only_known(r);

    return ngx_http_mesh_lengthen_timeouts(r);
}


static ngx_int_t
ngx_http_mesh_forward_get(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_request_t     *r = data;
    ngx_http_mesh_ctx_t    *ctx;
    ngx_mesh_connection_t  *mc;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);
    mc = ngx_mesh_connection(r->connection);

    if (mc == NULL) {
        return NGX_ERROR;
    }

    return ngx_mesh_connection_forward(r->connection, pc, ctx && ctx->forward_port ? ctx->forward_port : mc->port)
           == NGX_OK ? NGX_OK : NGX_BUSY;
}


static void
ngx_http_mesh_forward_free(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    ngx_http_mesh_tried(data, pc, state);
}


/* The application's own TLS (HTTPS probes) is not ours to judge. */
static ngx_int_t
ngx_http_mesh_forward_set_session(ngx_peer_connection_t *pc, void *data)
{
    (void) pc;
    (void) data;

    return NGX_OK;
}


static ngx_int_t
ngx_http_mesh_forward_init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    ngx_http_upstream_t  *u = r->upstream;

    (void) us;

    u->peer.data = r;
    u->peer.get = ngx_http_mesh_forward_get;
    u->peer.free = ngx_http_mesh_forward_free;
    u->peer.set_session = ngx_http_mesh_forward_set_session;
    u->peer.save_session = ngx_mesh_save_no_session;
    u->peer.tries = 1;

    ngx_http_mesh_repeat_only_known(r);

    return ngx_http_mesh_lengthen_timeouts(r);
}


static ngx_int_t
ngx_http_mesh_balance_init(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
    (void) cf;

    us->peer.init = ngx_http_mesh_balance_init_peer;

    return NGX_OK;
}


static ngx_int_t
ngx_http_mesh_forward_init(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
    (void) cf;

    us->peer.init = ngx_http_mesh_forward_init_peer;

    return NGX_OK;
}


static char *
ngx_http_mesh_balance(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_upstream_srv_conf_t  *us;

    (void) cmd;
    (void) conf;

    us = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);
    us->peer.init_upstream = ngx_http_mesh_balance_init;
    us->flags = NGX_HTTP_UPSTREAM_CREATE;

    return NGX_CONF_OK;
}


static char *
ngx_http_mesh_forward(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_upstream_srv_conf_t  *us;

    (void) cmd;
    (void) conf;

    us = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);
    us->peer.init_upstream = ngx_http_mesh_forward_init;
    us->flags = NGX_HTTP_UPSTREAM_CREATE;

    return NGX_CONF_OK;
}


static void
ngx_http_mesh_set(ngx_http_variable_value_t *v, u_char *data, size_t len)
{
    v->data = data;
    v->len = len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = (len == 0);
}


static ngx_int_t
ngx_http_mesh_variable_original(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_mesh_connection_t  *mc;

    (void) data;

    mc = ngx_mesh_connection(r->connection);
    if (mc == NULL) {
        return NGX_ERROR;
    }

    ngx_http_mesh_set(v, mc->name.data, mc->name.len);

    return NGX_OK;
}


static ngx_int_t
ngx_http_mesh_variable_peer(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t  id;

    (void) data;

    if (r->connection->ssl == NULL || ngx_mesh_connection_peer(r->connection, &id) != NGX_OK) {
        ngx_str_null(&id);
    }

    ngx_http_mesh_set(v, id.data, id.len);

    return NGX_OK;
}


static ngx_int_t
ngx_http_mesh_variable_policy(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    size_t         len;
    const u_char  *name = NULL;

    (void) data;

    len = ngx_http_mesh_ffi_granted(r, &name);
    ngx_http_mesh_set(v, (u_char *) name, len);

    return NGX_OK;
}


static ngx_int_t
ngx_http_mesh_variable_upstream_id(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_mesh_ctx_t  *ctx;

    (void) data;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx && ctx->balanced && ctx->attempts.tls) {
        ngx_http_mesh_set(v, ctx->attempts.last_id.data, ctx->attempts.last_id.len);
    } else {
        ngx_http_mesh_set(v, NULL, 0);
    }

    /* a retry may choose another endpoint */
    v->no_cacheable = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_http_mesh_variable_cluster(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_mesh_ctx_t  *ctx;

    (void) data;

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx && ctx->balanced) {
        ngx_http_mesh_set(v, ctx->attempts.cluster->node.str.data, ctx->attempts.cluster->node.str.len);
    } else {
        ngx_http_mesh_set(v, NULL, 0);
    }

    return NGX_OK;
}


/* `data`: 0 for HTTP/1, 1 for HTTP/2. Upstreams are apart by protocol and TLS so that no pooled connection serves two. */
static ngx_int_t
ngx_http_mesh_variable_upstream(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t            *url;
    ngx_http_mesh_ctx_t  *ctx;
    static ngx_str_t      urls[2][2] = {
        { ngx_string("http://mesh_plain"), ngx_string("https://mesh_mtls") },
        { ngx_string("grpc://mesh_plain_h2"), ngx_string("grpcs://mesh_mtls_h2") }
    };

    ctx = ngx_http_get_module_ctx(r, ngx_http_mesh_module);

    if (ctx == NULL || !ctx->balanced) {
        return NGX_ERROR;
    }

    url = &urls[data][ctx->attempts.tls];
    ngx_http_mesh_set(v, url->data, url->len);

    return NGX_OK;
}


/* `data`: which format this is the condition of. */
static ngx_int_t
ngx_http_mesh_variable_log(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    (void) r;

    ngx_http_mesh_set(v, (u_char *) "1", ngx_mesh_settings.json_log == data);

    return NGX_OK;
}


/* What strangers write, by the names of nginx's variables. */
static ngx_str_t  ngx_http_mesh_strange[] = {
    ngx_string("request_uri"),
    ngx_string("http_host"),
    ngx_string("http_user_agent"),
};

static ngx_int_t  ngx_http_mesh_strange_index[sizeof(ngx_http_mesh_strange) / sizeof(ngx_str_t)];


/* `data`: which of these. */
static ngx_int_t
ngx_http_mesh_variable_text(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    size_t                      invalid;
    u_char                     *p;
    ngx_http_variable_value_t  *raw;

    raw = ngx_http_get_indexed_variable(r, ngx_http_mesh_strange_index[data]);
    if (raw == NULL || raw->not_found) {
        v->not_found = 1;
        return NGX_OK;
    }

    invalid = text_invalid(raw->data, raw->len);
    if (invalid == 0) {
        ngx_http_mesh_set(v, raw->data, raw->len);
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, raw->len + 2 * invalid);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_http_mesh_set(v, p, text_repair(p, raw->data, raw->len));

    return NGX_OK;
}


/*
 * "1" when the application gave no byte of an answer: it refused, closed or was silent. An answer that nginx does not
 * take, a header that is too long for instance, is not held against the endpoint: any other would give it too.
 */
static ngx_int_t
ngx_http_mesh_variable_refused(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_uint_t                 silent = 0;
    ngx_http_upstream_state_t *state;

    (void) data;

    if (r->upstream_states && r->upstream_states->nelts) {
        state = r->upstream_states->elts;
        silent = state[r->upstream_states->nelts - 1].bytes_received == 0;
    }

    ngx_http_mesh_set(v, (u_char *) "1", silent);

    return NGX_OK;
}


static ngx_http_variable_t  ngx_http_mesh_variables[] = {
    { ngx_string("mesh_original_dst"), NULL, ngx_http_mesh_variable_original, 0, 0, 0 },
    { ngx_string("mesh_peer_id"), NULL, ngx_http_mesh_variable_peer, 0, 0, 0 },
    { ngx_string("mesh_cluster"), NULL, ngx_http_mesh_variable_cluster, 0, 0, 0 },
    { ngx_string("mesh_policy"), NULL, ngx_http_mesh_variable_policy, 0, NGX_HTTP_VAR_NOCACHEABLE, 0 },
    { ngx_string("mesh_upstream_id"), NULL, ngx_http_mesh_variable_upstream_id, 0, NGX_HTTP_VAR_NOCACHEABLE, 0 },
    { ngx_string("mesh_upstream"), NULL, ngx_http_mesh_variable_upstream, 0, 0, 0 },
    { ngx_string("mesh_grpc_upstream"), NULL, ngx_http_mesh_variable_upstream, 1, 0, 0 },
    { ngx_string("mesh_refused"), NULL, ngx_http_mesh_variable_refused, 0, NGX_HTTP_VAR_NOCACHEABLE, 0 },
    { ngx_string("mesh_log_default"), NULL, ngx_http_mesh_variable_log, 0, 0, 0 },
    { ngx_string("mesh_log_json"), NULL, ngx_http_mesh_variable_log, 1, 0, 0 },
    { ngx_string("mesh_log_path"), NULL, ngx_http_mesh_variable_text, 0, 0, 0 },
    { ngx_string("mesh_log_authority"), NULL, ngx_http_mesh_variable_text, 1, 0, 0 },
    { ngx_string("mesh_log_user_agent"), NULL, ngx_http_mesh_variable_text, 2, 0, 0 },
    ngx_http_null_variable
};


static ngx_int_t
ngx_http_mesh_preconfiguration(ngx_conf_t *cf)
{
    ngx_uint_t            i;
    ngx_http_variable_t  *var, *v;

    for (i = 0; i < sizeof(ngx_http_mesh_strange) / sizeof(ngx_str_t); i++) {
        ngx_http_mesh_strange_index[i] = ngx_http_get_variable_index(cf, &ngx_http_mesh_strange[i]);
        if (ngx_http_mesh_strange_index[i] == NGX_ERROR) {
            return NGX_ERROR;
        }
    }

    for (v = ngx_http_mesh_variables; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_mesh_add_handler(ngx_http_core_main_conf_t *cmcf, ngx_http_phases phase, ngx_http_handler_pt handler)
{
    ngx_http_handler_pt  *h;

    h = ngx_array_push(&cmcf->phases[phase].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = handler;

    return NGX_OK;
}


static ngx_int_t
ngx_http_mesh_postconfiguration(ngx_conf_t *cf)
{
    ngx_uint_t                   i;
    ngx_http_ssl_srv_conf_t     *sscf;
    ngx_http_core_srv_conf_t   **cscfp;
    ngx_http_core_main_conf_t   *cmcf;
    ngx_http_mesh_srv_conf_t    *mscf;
    ngx_http_mesh_loc_conf_t    *mlcf;

    ngx_http_mesh_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_mesh_header_filter;

    ngx_http_mesh_next_request_body_filter = ngx_http_top_request_body_filter;
    ngx_http_top_request_body_filter = ngx_http_mesh_request_body_filter;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        mscf = cscfp[i]->ctx->srv_conf[ngx_http_mesh_module.ctx_index];
        mlcf = cscfp[i]->ctx->loc_conf[ngx_http_mesh_module.ctx_index];
        sscf = cscfp[i]->ctx->srv_conf[ngx_http_ssl_module.ctx_index];

        if (mscf->tls && sscf->ssl.ctx && ngx_mesh_identity_serve(sscf->ssl.ctx, mlcf->count) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (ngx_mesh_limits_configure(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_mesh_add_handler(cmcf, NGX_HTTP_ACCESS_PHASE, ngx_http_mesh_access_handler) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_mesh_add_handler(cmcf, NGX_HTTP_LOG_PHASE, ngx_http_mesh_log_handler);
}


static void *
ngx_http_mesh_create_srv_conf(ngx_conf_t *cf)
{
    ngx_http_mesh_srv_conf_t  *conf;

    conf = ngx_palloc(cf->pool, sizeof(ngx_http_mesh_srv_conf_t));
    if (conf) {
        conf->tls = NGX_CONF_UNSET;
    }

    return conf;
}


static char *
ngx_http_mesh_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_mesh_srv_conf_t  *prev = parent;
    ngx_http_mesh_srv_conf_t  *conf = child;

    (void) cf;

    ngx_conf_merge_value(conf->tls, prev->tls, 0);

    return NGX_CONF_OK;
}


static void *
ngx_http_mesh_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_mesh_loc_conf_t  *conf;

    conf = ngx_palloc(cf->pool, sizeof(ngx_http_mesh_loc_conf_t));
    if (conf) {
        conf->role = NGX_CONF_UNSET_UINT;
        conf->count = NGX_CONF_UNSET;
    }

    return conf;
}


static char *
ngx_http_mesh_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_mesh_loc_conf_t  *prev = parent;
    ngx_http_mesh_loc_conf_t  *conf = child;

    (void) cf;

    ngx_conf_merge_uint_value(conf->role, prev->role, NGX_MESH_NONE);
    ngx_conf_merge_value(conf->count, prev->count, 0);

    return NGX_CONF_OK;
}


static ngx_command_t  ngx_http_mesh_commands[] = {

    { ngx_string("mesh_balance"),
      NGX_HTTP_UPS_CONF|NGX_CONF_NOARGS,
      ngx_http_mesh_balance,
      0,
      0,
      NULL },

    { ngx_string("mesh_forward"),
      NGX_HTTP_UPS_CONF|NGX_CONF_NOARGS,
      ngx_http_mesh_forward,
      0,
      0,
      NULL },

    { ngx_string("mesh_tls"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_SRV_CONF_OFFSET,
      offsetof(ngx_http_mesh_srv_conf_t, tls),
      NULL },

    { ngx_string("mesh_role"),
      NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_mesh_loc_conf_t, role),
      ngx_mesh_directions },

    { ngx_string("mesh_count"),
      NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_mesh_loc_conf_t, count),
      NULL },

    ngx_null_command
};


static ngx_http_module_t  ngx_http_mesh_module_ctx = {
    ngx_http_mesh_preconfiguration,
    ngx_http_mesh_postconfiguration,
    NULL,
    NULL,
    ngx_http_mesh_create_srv_conf,
    ngx_http_mesh_merge_srv_conf,
    ngx_http_mesh_create_loc_conf,
    ngx_http_mesh_merge_loc_conf
};


ngx_module_t  ngx_http_mesh_module = {
    NGX_MODULE_V1,
    &ngx_http_mesh_module_ctx,
    ngx_http_mesh_commands,
    NGX_HTTP_MODULE,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NGX_MODULE_V1_PADDING
};
