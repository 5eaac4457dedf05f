/* Requests in traces (W3C trace context), and the report about one that is sampled or watched. */

#include "ngx_mesh_report.h"

#include <openssl/rand.h>

#include "report.h"

/* Bytes, after escaping. The report as a whole is below 8 KiB. */
#define NGX_HTTP_MESH_PATH_MAX   1536
#define NGX_HTTP_MESH_NAME_MAX   512
#define NGX_HTTP_MESH_WORD_MAX   64

static ngx_str_t  ngx_http_mesh_traceparent = ngx_string("traceparent");
static ngx_str_t  ngx_http_mesh_tracestate = ngx_string("tracestate");
/* What is called so is not passed on (nginx.conf). */
static ngx_str_t  ngx_http_mesh_dropped = ngx_string("x-nginx-mesh-dropped");


static trace_random *
ngx_http_mesh_random(void)
{
    static ngx_uint_t    seeded;
    static trace_random  random;

    if (!seeded) {
        if (RAND_bytes((u_char *) random.s, sizeof(random.s)) != 1) {
            return NULL;
        }

        random.s[0] |= 1;               /* not all zeros */
        seeded = 1;
    }

    return &random;
}


static void
ngx_http_mesh_rename(ngx_table_elt_t *h, ngx_str_t *name)
{
    h->key = *name;
    h->lowcase_key = name->data;
    h->hash = ngx_hash_key(name->data, name->len);
}


/*
 * The request's traceparent, NULL without one. Of several none counts: they are dropped but for the first, and so is a
 * tracestate of no trace, unless `keep`.
 */
static ngx_table_elt_t *
ngx_http_mesh_trace_headers(ngx_http_request_t *r, ngx_uint_t *n, ngx_uint_t keep)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h, *found = NULL;

    *n = 0;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].key.len == ngx_http_mesh_traceparent.len
                && ngx_memcmp(h[i].lowcase_key, ngx_http_mesh_traceparent.data, h[i].key.len) == 0)
            {
                if ((*n)++ == 0) {
                    found = &h[i];

                } else if (!keep) {
                    ngx_http_mesh_rename(&h[i], &ngx_http_mesh_dropped);
                }

            } else if (!keep && h[i].key.len == ngx_http_mesh_tracestate.len
                       && ngx_memcmp(h[i].lowcase_key, ngx_http_mesh_tracestate.data, h[i].key.len) == 0)
            {
                ngx_http_mesh_rename(&h[i], &ngx_http_mesh_dropped);
            }
        }
    }

    return found;
}


static int64_t
ngx_http_mesh_wall_us(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_REALTIME, &ts);

    return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}


ngx_http_mesh_trace_t *
ngx_http_mesh_trace(ngx_http_request_t *r)
{
    u_char                 *value;
    ngx_uint_t              n, valid;
    trace_random           *random;
    trace_context           context;
    ngx_table_elt_t        *h;
    ngx_http_mesh_trace_t  *trace;

    h = ngx_http_mesh_trace_headers(r, &n, 1);
    valid = n == 1 && trace_parse(&context, h->value.data, h->value.len);

    if (valid && !(context.flags & TRACE_FLAG_SAMPLED)) {
        return NULL;
    }

    random = ngx_http_mesh_random();
    trace = ngx_pcalloc(r->pool, sizeof(ngx_http_mesh_trace_t) + TRACE_PARENT_LEN);

    if (random == NULL || trace == NULL) {
        return NULL;
    }

    trace->start = ngx_http_mesh_wall_us();
    trace->began = ngx_mesh_now_us();
    value = (u_char *) trace + sizeof(ngx_http_mesh_trace_t);

    if (valid) {
        trace->context = context;
        ngx_memcpy(trace->parent, context.span_id, sizeof(trace->parent));

    } else {
        trace_new_trace(&trace->context, random);

        if (trace_is_sampled(&ngx_mesh_reports.sampler, &trace->context)) {
            trace->context.flags |= TRACE_FLAG_SAMPLED;
        }

        h = ngx_http_mesh_trace_headers(r, &n, 0);
    }

    trace_new_span(&trace->context, random);
    trace_format(value, &trace->context);

    if (h == NULL) {
        h = ngx_list_push(&r->headers_in.headers);
        if (h == NULL) {
            return NULL;
        }

        ngx_memzero(h, sizeof(ngx_table_elt_t));
    }

    ngx_http_mesh_rename(h, &ngx_http_mesh_traceparent);
    h->value.data = value;
    h->value.len = TRACE_PARENT_LEN;

    return (trace->context.flags & TRACE_FLAG_SAMPLED) ? trace : NULL;
}


static void
ngx_http_mesh_report_id(report *to, const char *name, const uint8_t *id, size_t n)
{
    u_char  hex[2 * 16];

    trace_hex(hex, id, n);
    report_text(to, name, hex, 2 * n, 2 * n);
}


static void
ngx_http_mesh_report_str(report *to, const char *name, const ngx_str_t *text, size_t max)
{
    report_text(to, name, text->data, text->len, max);
}


static void
ngx_http_mesh_report_header(report *to, const char *name, ngx_table_elt_t *h)
{
    if (h) {
        ngx_http_mesh_report_str(to, name, &h->value, NGX_HTTP_MESH_NAME_MAX);
    }
}


/* Whether it is gRPC, and the status that the caller got. */
static void
ngx_http_mesh_report_grpc(report *to, ngx_http_request_t *r)
{
    ngx_int_t         code;
    const ngx_str_t  *status;
    ngx_table_elt_t  *type = r->headers_in.content_type;
    static ngx_str_t  grpc = ngx_string("application/grpc");
    static ngx_str_t  name = ngx_string("grpc-status");

    if (type == NULL || type->value.len < grpc.len
        || ngx_strncasecmp(type->value.data, grpc.data, grpc.len) != 0)
    {
        return;
    }

    report_number(to, "grpc", 1);

    status = ngx_http_mesh_field(&r->headers_out.headers, &name);

    if (status == NULL) {
        status = ngx_http_mesh_field(&r->headers_out.trailers, &name);
    }

    code = status && status->len <= 3 ? ngx_atoi(status->data, status->len) : NGX_ERROR;

    if (code != NGX_ERROR) {
        report_number(to, "grpc_status", code);
    }
}


/* As it was sent, but for the query, which may hold what is nobody's business. */
static ngx_str_t
ngx_http_mesh_path(ngx_http_request_t *r)
{
    ngx_str_t   path = { 0, r->unparsed_uri.data };
    ngx_str_t  *uri = &r->unparsed_uri;

    while (path.len < uri->len && uri->data[path.len] != '?' && uri->data[path.len] != '#') {
        path.len++;
    }

    return path;
}


/* How many endpoints were tried, and the last one. */
static ngx_uint_t
ngx_http_mesh_tries(ngx_http_request_t *r, ngx_str_t *last)
{
    ngx_uint_t                  n;
    ngx_http_upstream_state_t  *state;

    n = r->upstream_states ? r->upstream_states->nelts : 0;
    ngx_str_null(last);

    if (n) {
        state = r->upstream_states->elts;

        if (state[n - 1].peer) {
            *last = *state[n - 1].peer;
        }
    }

    return n;
}


/* Whether the IP of `address` ("ip", "ip:port" or "[ip]:port") is among the tap's. */
static ngx_uint_t
ngx_http_mesh_is_peer(const ngx_str_t *address)
{
    u_char      *p, *end, *colon, word[NGX_INET6_ADDRSTRLEN + 3];
    ngx_str_t   *peers = &ngx_mesh_reports.tap.peers;

    p = address->data;
    end = p + address->len;

    if (p < end && *p == '[') {
        p++;
        colon = ngx_strlchr(p, end, ']');

    } else {
        colon = ngx_strlchr(p, end, ':');

        if (colon && ngx_strlchr(colon + 1, end, ':')) {
            colon = NULL;               /* IPv6 without a port */
        }
    }

    end = colon ? colon : end;

    if (p >= end || (size_t) (end - p) > NGX_INET6_ADDRSTRLEN) {
        return 0;
    }

    *word = '\n';
    ngx_memcpy(word + 1, p, end - p);
    word[end - p + 1] = '\n';
    word[end - p + 2] = '\0';

    return ngx_strnstr(peers->data, (char *) word, peers->len) != NULL;
}


ngx_uint_t
ngx_http_mesh_tapped(ngx_http_request_t *r, const ngx_http_mesh_facts_t *facts)
{
    ngx_str_t               path, upstream;
    ngx_mesh_tap_t         *tap = &ngx_mesh_reports.tap;
    ngx_mesh_connection_t  *mc;

    if (!ngx_mesh_tap_on() || facts->status < tap->lowest || facts->status > tap->highest) {
        return 0;
    }

    if (tap->method.len && !ngx_mesh_str_equal(&tap->method, &r->method_name)) {
        return 0;
    }

    path = ngx_http_mesh_path(r);

    if (path.len < tap->path.len || ngx_memcmp(path.data, tap->path.data, tap->path.len) != 0) {
        return 0;
    }

    if (tap->peers.len) {

        if (facts->role == NGX_MESH_INBOUND) {
            if (!ngx_http_mesh_is_peer(&r->connection->addr_text)) {
                return 0;
            }

        } else {
            /* what was refused got no endpoint: then by what was dialled */
            mc = ngx_mesh_connection(r->connection);
            ngx_http_mesh_tries(r, &upstream);

            if (!ngx_http_mesh_is_peer(&upstream) && (mc == NULL || !ngx_http_mesh_is_peer(&mc->name))) {
                return 0;
            }
        }
    }

    return ngx_mesh_tap_take();
}


void
ngx_http_mesh_report(ngx_http_request_t *r, const ngx_http_mesh_facts_t *facts)
{
    report                  to;
    ngx_str_t               path, upstream;
    ngx_mesh_connection_t  *mc;
    static u_char           buffer[8192];
    static const uint8_t    none[8];

    const ngx_http_mesh_trace_t  *trace = facts->trace;

    report_begin(&to, buffer, sizeof(buffer));

    report_number(&to, "server", facts->role == NGX_MESH_INBOUND);
    report_number(&to, "tapped", facts->tapped != 0);

    if (trace) {
        ngx_http_mesh_report_id(&to, "trace", trace->context.trace_id, 16);
        ngx_http_mesh_report_id(&to, "span", trace->context.span_id, 8);

        if (ngx_memcmp(trace->parent, none, sizeof(none)) != 0) {
            ngx_http_mesh_report_id(&to, "parent", trace->parent, 8);
        }

        report_number(&to, "start_us", trace->start);
        report_number(&to, "duration_us", ngx_mesh_now_us() - trace->began);

    } else {
        report_number(&to, "start_us", (int64_t) r->start_sec * 1000000 + (int64_t) r->start_msec * 1000);
        report_number(&to, "duration_us", ngx_http_mesh_elapsed(r) * 1000);
    }

    ngx_http_mesh_report_str(&to, "method", &r->method_name, NGX_HTTP_MESH_WORD_MAX);
    path = ngx_http_mesh_path(r);
    ngx_http_mesh_report_str(&to, "path", &path, NGX_HTTP_MESH_PATH_MAX);
    ngx_http_mesh_report_header(&to, "authority", r->headers_in.host);
    ngx_http_mesh_report_header(&to, "user_agent", r->headers_in.user_agent);
    report_number(&to, "http2", r->http_version == NGX_HTTP_VERSION_20);
    report_number(&to, "status", (int64_t) facts->status);
    ngx_http_mesh_report_grpc(&to, r);

    ngx_http_mesh_report_str(&to, "client", &r->connection->addr_text, NGX_HTTP_MESH_WORD_MAX);
    report_number(&to, "client_port", ngx_inet_get_port(r->connection->sockaddr));

    mc = ngx_mesh_connection(r->connection);
    if (mc) {
        ngx_http_mesh_report_str(&to, "destination", &mc->name, NGX_HTTP_MESH_WORD_MAX);
    }

    report_number(&to, "tries", (int64_t) ngx_http_mesh_tries(r, &upstream));
    ngx_http_mesh_report_str(&to, "upstream", &upstream, NGX_HTTP_MESH_NAME_MAX);
    report_number(&to, "mtls", facts->tls != 0);
    ngx_http_mesh_report_str(&to, "peer_id", &facts->peer_id, NGX_HTTP_MESH_NAME_MAX);
    ngx_http_mesh_report_str(&to, "cluster", &facts->cluster, NGX_HTTP_MESH_NAME_MAX);
    ngx_http_mesh_report_str(&to, "policy", &facts->policy, NGX_HTTP_MESH_NAME_MAX);
    ngx_http_mesh_report_str(&to, "limited_by", &facts->limited_by, NGX_HTTP_MESH_NAME_MAX);
    ngx_http_mesh_report_str(&to, "reason", &facts->reason, NGX_HTTP_MESH_NAME_MAX);

    ngx_mesh_report_send(buffer, report_end(&to));
}
