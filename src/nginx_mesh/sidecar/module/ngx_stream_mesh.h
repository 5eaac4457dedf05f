/* What the stream files of the module share among themselves. */

#ifndef NGX_STREAM_MESH_H
#define NGX_STREAM_MESH_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_stream.h>

#include "ngx_mesh_balancer.h"
#include "ngx_mesh_breakers.h"
#include "ngx_mesh_connection.h"
#include "ngx_mesh_settings.h"

typedef struct {
    ngx_uint_t            sort;         /* mesh_sort: ngx_mesh_direction_e */
    ngx_uint_t            role;         /* mesh_role: ngx_mesh_direction_e */
    ngx_flag_t            tls;          /* mesh_tls */
} ngx_stream_mesh_srv_conf_t;

typedef struct {
    ngx_str_t             listener;     /* the internal listener that the connection goes to */
    ngx_mesh_attempts_t   attempts;
    ngx_uint_t            balanced;     /* attempts is in use */
    off_t                 sent;         /* bytes to the endpoint that were counted */
    off_t                 received;     /* bytes from it that were counted */
    ngx_mesh_tickets_t   *tickets;      /* NULL: no breaker asks for the outcome */
    ngx_str_t             policy;       /* the grant that allowed it; in the pool */
    ngx_stream_session_t *session;
    ngx_queue_t           queue;        /* in ngx_stream_mesh_accepted */
} ngx_stream_mesh_ctx_t;

/* Its configuration and context are found by its address, in all files. */
extern ngx_module_t  ngx_stream_mesh_module;


/* ngx_stream_mesh_session.c */

/* The session's context, made when it is missing. NULL: out of memory. */
ngx_stream_mesh_ctx_t *ngx_stream_mesh_ctx(ngx_stream_session_t *s);
/* Logs why the connection is refused, and returns the status that ends it. */
ngx_int_t ngx_stream_mesh_refuse(ngx_stream_session_t *s, ngx_mesh_connection_t *mc, const char *reason);
/*
 * NGX_OK: the module may decide about the connection, and `ctx` and `mc` are what it knows of the session and the
 * connection. Nothing passes before the sidecar has a state, or without having been redirected.
 */
ngx_int_t ngx_stream_mesh_check(ngx_stream_session_t *s, ngx_stream_mesh_ctx_t **ctx, ngx_mesh_connection_t **mc);


/* ngx_stream_mesh_sort.c: the access phase of servers with mesh_sort */

ngx_int_t ngx_stream_mesh_sort_handler(ngx_stream_session_t *s);


/* ngx_stream_mesh_access.c: the preread phase of servers with mesh_role, which comes after the TLS handshake */

ngx_int_t ngx_stream_mesh_access_handler(ngx_stream_session_t *s);
/* Lets the connections that are open be authorized again whenever something has changed that decides about it. */
void ngx_stream_mesh_access_init(void);


/* ngx_stream_mesh_upstream.c */

ngx_int_t ngx_stream_mesh_balance_init(ngx_conf_t *cf, ngx_stream_upstream_srv_conf_t *us);
ngx_int_t ngx_stream_mesh_forward_init(ngx_conf_t *cf, ngx_stream_upstream_srv_conf_t *us);
void ngx_stream_mesh_filter_init(void);


/* ngx_stream_mesh_log.c */

ngx_int_t ngx_stream_mesh_log_handler(ngx_stream_session_t *s);


/* ngx_stream_mesh_variables.c */

ngx_int_t ngx_stream_mesh_variables_init(ngx_conf_t *cf);

#endif
