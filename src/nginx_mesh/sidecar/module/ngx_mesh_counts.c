/*
 * What this worker counted and did not hand over yet. Lua takes it every second and adds it to shared memory
 * (lua/mesh/metrics.lua); it also knows how the series are called.
 */

#include "ngx_mesh.h"

typedef struct ngx_mesh_status_count_s  ngx_mesh_status_count_t;

struct ngx_mesh_status_count_s {
    ngx_mesh_status_count_t  *next;
    ngx_uint_t                status;
    ngx_uint_t                counted;
    metric_histogram          latency;
};

struct ngx_mesh_counts_s {
    ngx_mesh_endpoint_t      *endpoint;
    ngx_queue_t               queue;    /* in ngx_mesh_counted while there is something to take: it holds the endpoint */
    ngx_uint_t                counted;
    ngx_uint_t                tcp;      /* TCP is among what there is to take */
    ngx_mesh_status_count_t  *statuses;
    uint64_t                  numbers[NGX_MESH_NUMBERS];
    metric_histogram          times[NGX_MESH_TIMES];
};

/* Handed to Lua, all of them. */

typedef struct {
    uint64_t                  numbers[NGX_MESH_TOTALS];
    metric_histogram          latency;  /* of requests from the wire */
} ngx_mesh_ffi_totals_t;

typedef struct {
    ngx_str_t                 cluster;
    ngx_str_t                 endpoint;
    ngx_str_t                 labels;   /* empty: as the state has it */
    ngx_uint_t                tls;
    ngx_uint_t                tcp;      /* else its numbers and times are 0 */
    uint64_t                  numbers[NGX_MESH_NUMBERS];
    metric_histogram          times[NGX_MESH_TIMES];
} ngx_mesh_ffi_counts_t;

typedef struct {
    ngx_uint_t                status;
    metric_histogram          latency;
} ngx_mesh_ffi_status_t;

/* The statuses of nginx's stream sessions: what else there may be counts as 500. */
static const ngx_uint_t  ngx_mesh_session_statuses[] = { 200, 400, 403, 500, 502, 503 };

static ngx_mesh_ffi_totals_t     ngx_mesh_totals;
static ngx_queue_t               ngx_mesh_counted;
static ngx_mesh_endpoint_t      *ngx_mesh_taken;                /* the last one that was taken; a reference */
static ngx_mesh_status_count_t  *ngx_mesh_taken_status;         /* the next of its statuses */


void
ngx_mesh_count_total(ngx_mesh_total_e total)
{
    ngx_mesh_totals.numbers[total]++;
}


void
ngx_mesh_count_received(ngx_uint_t status, uint64_t ms)
{
    ngx_mesh_totals.numbers[NGX_MESH_RESPONSES + metric_status(status) / 100 - 1]++;
    metric_observe(&ngx_mesh_totals.latency, ms);
}


void
ngx_mesh_count_accepted(ngx_uint_t status)
{
    ngx_uint_t  i, n = sizeof(ngx_mesh_session_statuses) / sizeof(ngx_mesh_session_statuses[0]);

    for (i = 0; i < n && ngx_mesh_session_statuses[i] != status; i++) { /* void */ }

    ngx_mesh_totals.numbers[NGX_MESH_CONNECTIONS + (i < n ? i : 3)]++;
}


/* Where to count something of the endpoint. NULL: out of memory. */
static ngx_mesh_counts_t *
ngx_mesh_counts(ngx_mesh_endpoint_t *e)
{
    if (e->counts == NULL) {
        e->counts = ngx_calloc(sizeof(ngx_mesh_counts_t), ngx_cycle->log);
        if (e->counts == NULL) {
            return NULL;
        }

        e->counts->endpoint = e;
    }

    if (!e->counts->counted) {
        if (ngx_mesh_counted.next == NULL) {
            ngx_queue_init(&ngx_mesh_counted);
        }

        e->counts->counted = 1;
        e->refs++;
        ngx_queue_insert_tail(&ngx_mesh_counted, &e->counts->queue);
    }

    return e->counts;
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


void
ngx_mesh_counts_free(ngx_mesh_endpoint_t *e)
{
    ngx_mesh_status_count_t  *status;

    if (e->counts == NULL) {
        return;
    }

    while (e->counts->statuses) {
        status = e->counts->statuses;
        e->counts->statuses = status->next;
        ngx_free(status);
    }

    ngx_free(e->counts);
}


/* FFI. The totals since the last call. */
void
ngx_mesh_ffi_totals_take(ngx_mesh_ffi_totals_t *totals)
{
    *totals = ngx_mesh_totals;
    ngx_memzero(&ngx_mesh_totals, sizeof(ngx_mesh_totals));
}


/* FFI. What was counted of one endpoint since it was last taken, valid until the next call; NULL: no more. */
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
    counts->counted = 0;

    ngx_mesh_taken = counts->endpoint;
    ngx_mesh_taken_status = counts->statuses;

    taken.cluster = ngx_mesh_taken->cluster->node.str;
    taken.endpoint = ngx_mesh_taken->name;
    taken.labels = ngx_mesh_taken->labels;
    taken.tls = ngx_mesh_taken->tls;
    taken.tcp = counts->tcp;
    ngx_memcpy(taken.numbers, counts->numbers, sizeof(taken.numbers));
    ngx_memcpy(taken.times, counts->times, sizeof(taken.times));

    counts->tcp = 0;
    ngx_memzero(counts->numbers, sizeof(counts->numbers));
    ngx_memzero(counts->times, sizeof(counts->times));

    return &taken;
}


/* FFI. The requests to that endpoint with one status, valid until the next call; NULL: no more. */
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
