/* The report about a request that is sampled or watched. */

#include "ngx_http_mesh.h"

#include "ngx_mesh_clock.h"
#include "ngx_mesh_connection.h"
#include "ngx_mesh_report.h"
#include "ngx_mesh_strings.h"
#include "report.h"

/* Bytes, after escaping. The report as a whole is below 8 KiB. */
#define NGX_HTTP_MESH_PATH_MAX   1536
#define NGX_HTTP_MESH_NAME_MAX   512
#define NGX_HTTP_MESH_WORD_MAX   64


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


/* Whether it is gRPC, and the status that the caller got then. */
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


/* Whether the IP address in `address` ("ip", "ip:port" or "[ip]:port") is among those of the tap. */
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
            /* A request that was refused got no endpoint; then the address counts that was dialled. */
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
