/* Requests in traces (W3C trace context). */

#include "ngx_http_mesh.h"

#include "ngx_mesh_clock.h"
#include "ngx_mesh_report.h"

#include <openssl/rand.h>

static ngx_str_t  ngx_http_mesh_traceparent = ngx_string("traceparent");
static ngx_str_t  ngx_http_mesh_tracestate = ngx_string("tracestate");
/* A header that is renamed to this is not passed on (nginx.conf). */
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

        random.s[0] |= 1;               /* The state must not be all zeros. */
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
 * Finds the request's traceparent (NULL: there is none) and says in `n` how many there are; when there are several,
 * none is valid. Unless `keep`, all but the first are dropped, and so is the tracestate, which then belongs to no
 * trace.
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
