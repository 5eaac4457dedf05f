/* The circuit breakers of services that are in use, and the requests that they let pass. */

#ifndef NGX_MESH_BREAKERS_H
#define NGX_MESH_BREAKERS_H

#include <ngx_config.h>
#include <ngx_core.h>

#include "breaker.h"
#include "ngx_mesh_lua.h"

#define NGX_MESH_BREAKERS_MAX  2        /* that one request passes: the service's and the backend's */

typedef struct ngx_mesh_breaker_s  ngx_mesh_breaker_t;
/* By which a request tells the breakers that let it pass how it ended. It lives in a pool. */
typedef struct ngx_mesh_tickets_s  ngx_mesh_tickets_t;

ngx_uint_t ngx_mesh_breakers_n(void);
/* NULL: the service has none. */
ngx_mesh_breaker_t *ngx_mesh_breaker_find(const ngx_str_t *service);
const ngx_str_t *ngx_mesh_breaker_service(const ngx_mesh_breaker_t *b);
/* A cluster; empty: it has no fallback. */
const ngx_str_t *ngx_mesh_breaker_fallback(const ngx_mesh_breaker_t *b);

/*
 * NGX_OK: the breaker lets the request pass, and `*tickets`, made in the pool when it is NULL, has a ticket for it;
 * NGX_DECLINED: it does not let it pass.
 */
ngx_int_t ngx_mesh_breaker_admit(ngx_mesh_breaker_t *b, ngx_mesh_tickets_t **tickets, ngx_pool_t *pool);
/* The same of a request that is only asked about: the breaker learns nothing, and `dry` gets what would be. */
ngx_int_t ngx_mesh_breaker_dry_run(ngx_mesh_breaker_t *b, ngx_mesh_dry_t *dry);

/* The answer has begun, and is no failure so far. */
void ngx_mesh_tickets_begun(ngx_mesh_tickets_t *tickets);
/* The request is over. Only the first call counts; without one the outcome is unknown when the pool is destroyed. */
void ngx_mesh_tickets_end(ngx_mesh_tickets_t *tickets, breaker_outcome outcome);

#endif
