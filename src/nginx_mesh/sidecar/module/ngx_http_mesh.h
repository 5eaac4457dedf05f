/* What the HTTP files of the module share among themselves. */

#ifndef NGX_HTTP_MESH_H
#define NGX_HTTP_MESH_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "breaker.h"
#include "ngx_mesh_balancer.h"
#include "ngx_mesh_breakers.h"
#include "ngx_mesh_lua.h"
#include "ngx_mesh_settings.h"
#include "trace.h"

typedef struct {
    ngx_flag_t            tls;          /* mesh_tls */
} ngx_http_mesh_srv_conf_t;

typedef struct {
    ngx_uint_t            role;         /* mesh_role: ngx_mesh_direction_e */
    ngx_flag_t            count;        /* mesh_count */
} ngx_http_mesh_loc_conf_t;

/* The sidecar's own span in a trace. */
typedef struct {
    trace_context         context;
    uint8_t               parent[8];    /* all zeros: there is none */
    int64_t               start;        /* microseconds since the epoch */
    int64_t               began;        /* ngx_mesh_now_us() */
} ngx_http_mesh_trace_t;

/* What the module knows of a request. All strings are in the request's pool. */
typedef struct {
    ngx_mesh_attempts_t   attempts;
    ngx_uint_t            balanced;     /* attempts is in use */
    ngx_int_t           (*process_header)(ngx_http_request_t *r);
    ngx_int_t           (*reinit_request)(ngx_http_request_t *r);
    void                (*finalize_request)(ngx_http_request_t *r, ngx_int_t rc);
    ngx_uint_t            stale;        /* kept connections that failed */
    ngx_mesh_tickets_t   *tickets;      /* NULL: no breaker asks for the outcome */
    ngx_int_t             ended;        /* what the upstream was finalized with */
    in_port_t             forward_port; /* 0: the port that the caller dialled */
    off_t                 body_limit;   /* 0: none */
    off_t                 body_seen;
    ngx_uint_t            denied;       /* by access rules, which are not asked again */
    ngx_uint_t            limited;      /* rate limits were asked: see `wait` */
    ngx_int_t             wait;         /* milliseconds; NGX_BUSY: it is over a limit */
    ngx_str_t             limited_by;
    ngx_str_t             policy;       /* the grant that allowed it */
    ngx_uint_t            role;         /* set when the request is observed */
    ngx_http_mesh_trace_t  *trace;      /* NULL: it is not sampled */
    ngx_str_t             reason;       /* why it was refused */
} ngx_http_mesh_ctx_t;

/* What is reported of a request beside what nginx knows. */
typedef struct {
    ngx_mesh_direction_e     role;
    ngx_http_mesh_trace_t   *trace;     /* NULL: it is in no trace that is sampled */
    ngx_uint_t               tapped;    /* somebody watches it */
    ngx_uint_t               status;
    ngx_uint_t               tls;       /* whether it came, or went, by mTLS */
    ngx_str_t                peer_id;   /* of the other side, as far as it was proved */
    ngx_str_t                cluster;
    ngx_str_t                policy;    /* the grant that allowed it */
    ngx_str_t                limited_by;
    ngx_str_t                reason;    /* why the sidecar refused it */
} ngx_http_mesh_facts_t;

/* Its configuration and context are found by its address, in all files. */
extern ngx_module_t  ngx_http_mesh_module;


/* ngx_http_mesh_request.c */

/* The request's context, made when it is missing. NULL: out of memory. */
ngx_http_mesh_ctx_t *ngx_http_mesh_ctx(ngx_http_request_t *r);
/*
 * The policy for a request from the wire, which may be NULL, and the SPIFFE ID of the caller, empty when it proved
 * none.
 */
ngx_mesh_policy_t *ngx_http_mesh_policy(ngx_http_request_t *r, ngx_str_t *id);
/* The value of the first header by that name; NULL: there is none. */
const ngx_str_t *ngx_http_mesh_field(ngx_list_t *fields, const ngx_str_t *name);
ngx_uint_t ngx_http_mesh_status(ngx_http_request_t *r);
/* Milliseconds since the request began. */
int64_t ngx_http_mesh_elapsed(ngx_http_request_t *r);
/* The path as it was sent, without the query, which may hold secrets. */
ngx_str_t ngx_http_mesh_path(ngx_http_request_t *r);


/* ngx_http_mesh_outcome.c */

/* How the request ended, for whoever counts failures of endpoints. */
breaker_outcome ngx_http_mesh_outcome(ngx_http_request_t *r, ngx_http_mesh_ctx_t *ctx);


/* ngx_http_mesh_trace.c */

/*
 * Puts the request into a trace: the request that is passed on has the sidecar's own traceparent. NULL when it is not
 * sampled, or memory is short; then it is passed on as it is, or saying that nobody samples it.
 */
ngx_http_mesh_trace_t *ngx_http_mesh_trace(ngx_http_request_t *r);


/* ngx_http_mesh_report.c */

/* Whether somebody watches the request; then it is counted in the tap's rate. */
ngx_uint_t ngx_http_mesh_tapped(ngx_http_request_t *r, const ngx_http_mesh_facts_t *facts);
void ngx_http_mesh_report(ngx_http_request_t *r, const ngx_http_mesh_facts_t *facts);


/* ngx_http_mesh_access.c */

ngx_int_t ngx_http_mesh_access_handler(ngx_http_request_t *r);


/* ngx_http_mesh_upstream.c */

ngx_int_t ngx_http_mesh_balance_init(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us);
ngx_int_t ngx_http_mesh_forward_init(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us);


/* ngx_http_mesh_filters.c */

void ngx_http_mesh_filters_init(void);


/* ngx_http_mesh_log.c */

/* Remembers that the request is to be reported; this must be called before anybody refuses it. */
void ngx_http_mesh_observe(ngx_http_request_t *r, ngx_uint_t role);
ngx_int_t ngx_http_mesh_log_handler(ngx_http_request_t *r);


/* ngx_http_mesh_variables.c */

ngx_int_t ngx_http_mesh_variables_init(ngx_conf_t *cf);

#endif
