/* Reports about single requests, to the node: which ones there are, and how they get there. */

#ifndef NGX_MESH_REPORT_H
#define NGX_MESH_REPORT_H

#include <ngx_http.h>

#include "ngx_mesh.h"
#include "limit.h"
#include "trace.h"


/* what is reported: ngx_mesh_report.c */

/* Requests that somebody watches. It ends by itself. */
typedef struct {
    ngx_uint_t               on;
    ngx_msec_t               until;     /* ngx_current_msec */
    limit_rate               rate;
    limit_bucket             bucket;
    ngx_uint_t               lowest;    /* status */
    ngx_uint_t               highest;
    ngx_str_t                method;    /* empty: any */
    ngx_str_t                path;      /* its beginning */
    ngx_str_t                peers;     /* "\nIP\nIP\n": one of them is the other side; empty: any */
    u_char                  *texts;     /* what these are in */
} ngx_mesh_tap_t;

typedef struct {
    ngx_uint_t               on;        /* requests are looked at, for any reason */
    ngx_uint_t               tracing;
    trace_sampler            sampler;
    ngx_mesh_tap_t           tap;
} ngx_mesh_reports_t;

extern ngx_mesh_reports_t  ngx_mesh_reports;

/* Whether the tap is on; it is turned off when its time is over. */
ngx_uint_t ngx_mesh_tap_on(void);
/* Takes a request into the tap's rate. */
ngx_uint_t ngx_mesh_tap_take(void);
/* Never waits: a report that the node does not take at once is dropped, and counted. */
void ngx_mesh_report_send(const u_char *data, size_t len);


/* requests: ngx_http_mesh_trace.c */

/* The sidecar's own span. */
typedef struct {
    trace_context            context;
    uint8_t                  parent[8]; /* all zeros: none */
    int64_t                  start;     /* microseconds since the epoch */
    int64_t                  began;     /* ngx_mesh_now_us() */
} ngx_http_mesh_trace_t;

/* What the module knows of a request beside what nginx does. */
typedef struct {
    ngx_mesh_direction_e     role;
    ngx_http_mesh_trace_t   *trace;     /* NULL: it is in no trace that is sampled */
    ngx_uint_t               tapped;    /* somebody watches */
    ngx_uint_t               status;
    ngx_uint_t               tls;       /* whether it came, or went, by mTLS */
    ngx_str_t                peer_id;   /* of the other side, as far as it was proved */
    ngx_str_t                cluster;
    ngx_str_t                policy;    /* the grant that allowed it */
    ngx_str_t                limited_by;
    ngx_str_t                reason;    /* why the sidecar refused it */
} ngx_http_mesh_facts_t;

/*
 * Puts the request into a trace: what is passed on has the sidecar's own traceparent. NULL when it is not sampled, or
 * memory is short; then it is passed on as it is, or with word that nobody samples it.
 */
ngx_http_mesh_trace_t *ngx_http_mesh_trace(ngx_http_request_t *r);
/* Whether it is one that somebody watches; it is taken into the tap's rate then. */
ngx_uint_t ngx_http_mesh_tapped(ngx_http_request_t *r, const ngx_http_mesh_facts_t *facts);
void ngx_http_mesh_report(ngx_http_request_t *r, const ngx_http_mesh_facts_t *facts);

/* ngx_http_mesh_module.c */
const ngx_str_t *ngx_http_mesh_field(ngx_list_t *fields, const ngx_str_t *name);
int64_t ngx_http_mesh_elapsed(ngx_http_request_t *r);

#endif
