/*
 * What this worker counted and did not hand over yet. Lua takes it every second and adds it to shared memory
 * (lua/mesh/metrics.lua); it also knows how the series are called.
 */

#include "ngx_mesh.h"

struct ngx_mesh_count_s {
    ngx_mesh_count_t     *next;         /* of the same endpoint, another status */
    ngx_mesh_endpoint_t  *endpoint;
    ngx_queue_t           queue;        /* in ngx_mesh_counted while there is something to take: it holds the endpoint */
    ngx_uint_t            status;
    uint64_t              ms;
    uint32_t              buckets[METRIC_BUCKETS];
    ngx_uint_t            counted;
};

/* Handed to Lua. */
typedef struct {
    u_char               *cluster;
    size_t                cluster_len;
    u_char               *endpoint;
    size_t                endpoint_len;
    ngx_uint_t            status;
    ngx_uint_t            tls;
    uint64_t              ms;
    uint32_t              buckets[METRIC_BUCKETS];
} ngx_mesh_ffi_count_t;

static ngx_queue_t  ngx_mesh_counted;
static ngx_uint_t   ngx_mesh_requests;


void
ngx_mesh_count_request(void)
{
    ngx_mesh_requests++;
}


void
ngx_mesh_count_response(ngx_mesh_endpoint_t *e, ngx_uint_t status, uint64_t ms)
{
    ngx_mesh_count_t  *count;

    status = metric_status(status);

    for (count = e->counts; count; count = count->next) {
        if (count->status == status) {
            break;
        }
    }

    if (count == NULL) {
        count = ngx_calloc(sizeof(ngx_mesh_count_t), ngx_cycle->log);
        if (count == NULL) {
            return;
        }

        count->status = status;
        count->endpoint = e;
        count->next = e->counts;
        e->counts = count;
    }

    if (!count->counted) {
        if (ngx_mesh_counted.next == NULL) {
            ngx_queue_init(&ngx_mesh_counted);
        }

        count->counted = 1;
        e->refs++;
        ngx_queue_insert_tail(&ngx_mesh_counted, &count->queue);
    }

    count->ms += ms;
    count->buckets[metric_bucket(ms)]++;
}


void
ngx_mesh_counts_free(ngx_mesh_endpoint_t *e)
{
    ngx_mesh_count_t  *count;

    while (e->counts) {
        count = e->counts;
        e->counts = count->next;
        ngx_free(count);
    }
}


/* FFI. Requests received since the last call. */
ngx_uint_t
ngx_mesh_ffi_requests_take(void)
{
    ngx_uint_t  n;

    n = ngx_mesh_requests;
    ngx_mesh_requests = 0;

    return n;
}


/* FFI. What was counted of one endpoint and status since it was last taken, valid until the next call; NULL: no more. */
ngx_mesh_ffi_count_t *
ngx_mesh_ffi_count_take(void)
{
    ngx_queue_t                 *q;
    ngx_mesh_count_t            *count;
    static ngx_mesh_endpoint_t  *held;
    static ngx_mesh_ffi_count_t  taken;

    if (held) {
        ngx_mesh_endpoint_release(held);
        held = NULL;
    }

    if (ngx_mesh_counted.next == NULL || ngx_queue_empty(&ngx_mesh_counted)) {
        return NULL;
    }

    q = ngx_queue_head(&ngx_mesh_counted);
    ngx_queue_remove(q);

    count = ngx_queue_data(q, ngx_mesh_count_t, queue);
    held = count->endpoint;

    taken.cluster = held->cluster->node.str.data;
    taken.cluster_len = held->cluster->node.str.len;
    taken.endpoint = held->name.data;
    taken.endpoint_len = held->name.len;
    taken.status = count->status;
    taken.tls = held->tls;
    taken.ms = count->ms;
    ngx_memcpy(taken.buckets, count->buckets, sizeof(taken.buckets));

    count->counted = 0;
    count->ms = 0;
    ngx_memzero(count->buckets, sizeof(count->buckets));

    return &taken;
}
