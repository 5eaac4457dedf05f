/*
 * Where a request or TCP connection to a service goes: past the service's circuit breaker, through its split, past the
 * breaker of the backend that was chosen, to a cluster.
 */

#ifndef NGX_MESH_ROUTE_H
#define NGX_MESH_ROUTE_H

#include "ngx_mesh_breakers.h"
#include "ngx_mesh_clusters.h"
#include "ngx_mesh_destinations.h"
#include "ngx_mesh_lua.h"

typedef struct {
    ngx_mesh_cluster_t  *cluster;       /* to call */
    ngx_mesh_tickets_t  *tickets;       /* NULL: no breaker asks how the request ends */
    const ngx_str_t     *name;          /* of the service or cluster that decided */
    ngx_mesh_dry_t      *dry;           /* NULL unless it is a dry run */
} ngx_mesh_route_t;

/*
 * `r` is NULL for TCP. NGX_DECLINED: the destination's cluster is not loaded; NGX_BUSY: the cluster `name` has no
 * endpoint; NGX_ABORT: the circuit of `name` is open and its fallback cannot be called.
 */
ngx_int_t ngx_mesh_route(ngx_mesh_route_t *route, const ngx_mesh_destination_t *d, ngx_http_request_t *r,
    ngx_pool_t *pool);
/* The same of a request that is only asked about: nothing learns of it. */
ngx_int_t ngx_mesh_route_dry_run(ngx_mesh_dry_t *dry, const ngx_mesh_destination_t *d, ngx_http_request_t *r);

#endif
