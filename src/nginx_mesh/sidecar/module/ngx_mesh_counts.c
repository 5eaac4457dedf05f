#include "ngx_mesh_counts.h"

#include "metric.h"
#include "ngx_mesh_strings.h"

typedef struct ngx_mesh_status_count_s  ngx_mesh_status_count_t;

struct ngx_mesh_status_count_s {
    ngx_mesh_status_count_t  *next;
    ngx_uint_t                status;
    ngx_uint_t                counted;
    metric_histogram          latency;
};

/*
 * The counts of an endpoint. While Lua has something to take of them, they are queued and hold a reference to the
 * endpoint.
 */
typedef struct {
    ngx_mesh_endpoint_t      *endpoint;
    ngx_queue_t               queue;    /* in ngx_mesh_counted */
    ngx_uint_t                queued;
    ngx_uint_t                tcp;      /* something of TCP was counted since they were taken */
    ngx_mesh_status_count_t  *statuses;
    uint64_t                  numbers[NGX_MESH_NUMBERS];
    metric_histogram          times[NGX_MESH_TIMES];
} ngx_mesh_counts_t;

static ngx_queue_t               ngx_mesh_counted;
static ngx_mesh_endpoint_t      *ngx_mesh_taken;                /* the last one that was taken; a reference */
static ngx_mesh_status_count_t  *ngx_mesh_taken_status;         /* the next of its statuses */


static void
ngx_mesh_counts_free(void *data)
{
    ngx_mesh_counts_t        *counts = data;
    ngx_mesh_status_count_t  *status;

    while (counts->statuses) {
        status = counts->statuses;
        counts->statuses = status->next;
        ngx_free(status);
    }

    ngx_free(counts);
}


/* Where something of the endpoint is counted. NULL: out of memory. */
static ngx_mesh_counts_t *
ngx_mesh_counts(ngx_mesh_endpoint_t *e)
{
    ngx_mesh_counts_t  *counts = e->counts;

    if (counts == NULL) {
        counts = ngx_calloc(sizeof(ngx_mesh_counts_t), ngx_cycle->log);
        if (counts == NULL) {
            return NULL;
        }

        counts->endpoint = e;
        e->counts = counts;
        e->counts_free = ngx_mesh_counts_free;
    }

    if (!counts->queued) {
        if (ngx_mesh_counted.next == NULL) {
            ngx_queue_init(&ngx_mesh_counted);
        }

        counts->queued = 1;
        e->refs++;
        ngx_queue_insert_tail(&ngx_mesh_counted, &counts->queue);
    }

    return counts;
}


void
ngx_mesh_count_number(ngx_mesh_endpoint_t *e, ngx_mesh_number_e number, uint64_t n)
{
    ngx_mesh_counts_t  *counts;

    counts = n ? ngx_mesh_counts(e) : NULL;

    if (counts) {
        counts->numbers[number] += n;
        counts->tcp |= number >= NGX_MESH_TCP_CONNECTIONS;
    }
}


void
ngx_mesh_count_time(ngx_mesh_endpoint_t *e, ngx_mesh_time_e time, uint64_t ms)
{
    ngx_mesh_counts_t  *counts;

    counts = ngx_mesh_counts(e);

    if (counts) {
        metric_observe(&counts->times[time], ms);
        counts->tcp = 1;
    }
}


void
ngx_mesh_count_response(ngx_mesh_endpoint_t *e, ngx_uint_t status, uint64_t ms)
{
    ngx_mesh_counts_t        *counts;
    ngx_mesh_status_count_t  *found;

    status = metric_status(status);

    counts = ngx_mesh_counts(e);
    if (counts == NULL) {
        return;
    }

    for (found = counts->statuses; found && found->status != status; found = found->next) { /* void */ }

    if (found == NULL) {
        found = ngx_calloc(sizeof(ngx_mesh_status_count_t), ngx_cycle->log);
        if (found == NULL) {
            return;
        }

        found->status = status;
        found->next = counts->statuses;
        counts->statuses = found;
    }

    found->counted = 1;
    metric_observe(&found->latency, ms);
}


ngx_mesh_ffi_counts_t *
ngx_mesh_ffi_counts_take(void)
{
    ngx_queue_t                   *q;
    ngx_mesh_counts_t             *counts;
    static ngx_mesh_ffi_counts_t   taken;

    if (ngx_mesh_taken) {
        ngx_mesh_endpoint_release(ngx_mesh_taken);
        ngx_mesh_taken = NULL;
        ngx_mesh_taken_status = NULL;
    }

    if (ngx_mesh_counted.next == NULL || ngx_queue_empty(&ngx_mesh_counted)) {
        return NULL;
    }

    q = ngx_queue_head(&ngx_mesh_counted);
    ngx_queue_remove(q);

    counts = ngx_queue_data(q, ngx_mesh_counts_t, queue);
    counts->queued = 0;

    ngx_mesh_taken = counts->endpoint;
    ngx_mesh_taken_status = counts->statuses;

    taken.cluster = ngx_mesh_ffi_str(&ngx_mesh_taken->cluster->node.str);
    taken.endpoint = ngx_mesh_ffi_str(&ngx_mesh_taken->name);
    taken.labels = ngx_mesh_ffi_str(&ngx_mesh_taken->labels);
    taken.tls = ngx_mesh_taken->tls;
    taken.tcp = counts->tcp;
    ngx_memcpy(taken.numbers, counts->numbers, sizeof(taken.numbers));
    ngx_memcpy(taken.times, counts->times, sizeof(taken.times));

    counts->tcp = 0;
    ngx_memzero(counts->numbers, sizeof(counts->numbers));
    ngx_memzero(counts->times, sizeof(counts->times));

    return &taken;
}


ngx_mesh_ffi_status_t *
ngx_mesh_ffi_status_take(void)
{
    ngx_mesh_status_count_t       *status;
    static ngx_mesh_ffi_status_t   taken;

    while (ngx_mesh_taken_status) {
        status = ngx_mesh_taken_status;
        ngx_mesh_taken_status = status->next;

        if (status->counted) {
            taken.status = status->status;
            taken.latency = status->latency;

            status->counted = 0;
            ngx_memzero(&status->latency, sizeof(metric_histogram));

            return &taken;
        }
    }

    return NULL;
}
