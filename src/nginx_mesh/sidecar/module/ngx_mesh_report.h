/* Reports about single requests to the node: which requests are reported, and how a report gets there. */

#ifndef NGX_MESH_REPORT_H
#define NGX_MESH_REPORT_H

#include <ngx_config.h>
#include <ngx_core.h>

#include "limit.h"
#include "trace.h"

/* Requests that somebody watches with `nginx-meshctl tap`. The tap ends by itself. */
typedef struct {
    ngx_uint_t               on;
    ngx_msec_t               until;     /* ngx_current_msec */
    limit_rate               rate;
    limit_bucket             bucket;
    ngx_uint_t               lowest;    /* status */
    ngx_uint_t               highest;
    ngx_str_t                method;    /* empty: any */
    ngx_str_t                path;      /* what a path begins with */
    ngx_str_t                peers;     /* "\nIP\nIP\n", of which one is the other side; empty: any */
    u_char                  *texts;     /* the memory of these three */
} ngx_mesh_tap_t;

typedef struct {
    ngx_uint_t               on;        /* requests are observed, for tracing or for a tap */
    ngx_uint_t               tracing;
    trace_sampler            sampler;
    ngx_mesh_tap_t           tap;
} ngx_mesh_reports_t;

extern ngx_mesh_reports_t  ngx_mesh_reports;

/* Whether the tap is on. It is turned off here when its time is over. */
ngx_uint_t ngx_mesh_tap_on(void);
/* Counts a request in the tap's rate. 0: the rate does not allow it. */
ngx_uint_t ngx_mesh_tap_take(void);
/* Never waits: a report that the node does not take at once is dropped and counted. */
void ngx_mesh_report_send(const u_char *data, size_t len);

#endif
