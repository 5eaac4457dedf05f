#include "ngx_mesh_totals.h"

#include "metric.h"

/* The statuses that nginx's stream sessions have. Any other status counts as 500. */
static const ngx_uint_t       ngx_mesh_session_statuses[] = { 200, 400, 403, 500, 502, 503 };

static ngx_mesh_ffi_totals_t  ngx_mesh_totals;


void
ngx_mesh_count_total(ngx_mesh_total_e total)
{
    ngx_mesh_totals.numbers[total]++;
}


void
ngx_mesh_count_received(ngx_uint_t status, uint64_t ms)
{
    ngx_mesh_totals.numbers[NGX_MESH_TOTAL_1XX + metric_status(status) / 100 - 1]++;
    metric_observe(&ngx_mesh_totals.latency, ms);
}


void
ngx_mesh_count_accepted(ngx_uint_t status)
{
    ngx_uint_t  i, n = sizeof(ngx_mesh_session_statuses) / sizeof(ngx_mesh_session_statuses[0]);

    for (i = 0; i < n && ngx_mesh_session_statuses[i] != status; i++) { /* void */ }

    ngx_mesh_totals.numbers[i < n ? NGX_MESH_TOTAL_SESSION_200 + i : NGX_MESH_TOTAL_SESSION_500]++;
}


void
ngx_mesh_ffi_totals_take(ngx_mesh_ffi_totals_t *totals)
{
    *totals = ngx_mesh_totals;
    ngx_memzero(&ngx_mesh_totals, sizeof(ngx_mesh_totals));
}
