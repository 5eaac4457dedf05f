#include "ngx_mesh_route.h"

#include "ngx_mesh_log.h"
#include "ngx_mesh_splits.h"
#include "ngx_mesh_strings.h"


/*
 * NGX_OK: the service has no breaker, or its breaker lets the request pass; NGX_DONE: the request goes to the breaker's
 * fallback; NGX_ABORT: the fallback cannot be called.
 */
static ngx_int_t
ngx_mesh_route_breaker(ngx_mesh_route_t *route, const ngx_str_t *service, ngx_pool_t *pool)
{
    ngx_int_t            rc;
    ngx_mesh_breaker_t  *b;

    b = ngx_mesh_breaker_find(service);

    if (b == NULL) {
        return NGX_OK;
    }

    rc = route->dry ? ngx_mesh_breaker_dry_run(b, route->dry) : ngx_mesh_breaker_admit(b, &route->tickets, pool);
    if (rc != NGX_DECLINED) {
        return rc;
    }

    route->cluster = ngx_mesh_cluster_find(ngx_mesh_breaker_fallback(b));
    route->name = ngx_mesh_breaker_service(b);

    return ngx_mesh_cluster_usable(route->cluster) ? NGX_DONE : NGX_ABORT;
}


/* Changes the route when the split of the service sends the request to a backend. */
static void
ngx_mesh_route_split(ngx_mesh_route_t *route, const ngx_str_t *service, ngx_http_request_t *r, ngx_pool_t *pool)
{
    const ngx_str_t     *name = NULL;
    ngx_mesh_cluster_t  *cluster;

    cluster = ngx_mesh_split_choose(service, route->cluster, r, route->dry, &name);

    if (name == NULL) {
        return;
    }

    route->cluster = cluster;
    route->name = name;

    if (pool) {
        ngx_mesh_log_decision(pool->log, "the split of \"%V\" chose the backend \"%V\"", service, name);
    }
}


static ngx_int_t
ngx_mesh_route_service(ngx_mesh_route_t *route, const ngx_str_t *service, ngx_http_request_t *r, ngx_pool_t *pool)
{
    ngx_int_t  rc;

    rc = ngx_mesh_route_breaker(route, service, pool);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_mesh_route_split(route, service, r, pool);

    return ngx_mesh_str_equal(route->name, service) ? NGX_OK : ngx_mesh_route_breaker(route, route->name, pool);
}


static ngx_int_t
ngx_mesh_route_find(ngx_mesh_route_t *route, const ngx_mesh_destination_t *d, ngx_http_request_t *r, ngx_pool_t *pool)
{
    ngx_int_t  rc;

    route->cluster = ngx_mesh_cluster_find(&d->cluster);
    route->tickets = NULL;

    if (route->cluster == NULL) {
        return NGX_DECLINED;
    }

    if (ngx_mesh_splits_n() + ngx_mesh_breakers_n() == 0) {
        route->name = &d->cluster;
        return ngx_mesh_cluster_usable(route->cluster) ? NGX_OK : NGX_BUSY;
    }

    route->name = &d->service;

    rc = ngx_mesh_route_service(route, &d->service, r, pool);

    if ((rc == NGX_OK || rc == NGX_DONE) && !ngx_mesh_cluster_usable(route->cluster)) {
        rc = NGX_BUSY;
    }

    if (rc == NGX_OK || rc == NGX_DONE) {
        return NGX_OK;
    }

    if (route->tickets) {
        ngx_mesh_tickets_end(route->tickets, BREAKER_UNKNOWN);
    }

    return rc;
}


static void
ngx_mesh_route_log(ngx_log_t *log, const ngx_mesh_route_t *route, const ngx_mesh_destination_t *d, ngx_int_t rc)
{
    switch (rc) {

    case NGX_OK:
        ngx_mesh_log_decision(log, "the destination \"%V\" of service \"%V\" goes to the cluster \"%V\"", &d->node.str,
                              &d->service, &route->cluster->node.str);
        break;

    case NGX_DECLINED:
        ngx_mesh_log_decision(log, "the cluster \"%V\" of the destination \"%V\" is not loaded yet", &d->cluster,
                              &d->node.str);
        break;

    case NGX_BUSY:
        ngx_mesh_log_decision(log, "the destination \"%V\" is not called: \"%V\" has no endpoint", &d->node.str,
                              route->name);
        break;

    case NGX_ABORT:
        ngx_mesh_log_decision(log, "the destination \"%V\" is not called: the circuit of \"%V\" is open and its "
                              "fallback cannot be called", &d->node.str, route->name);
        break;
    }
}


ngx_int_t
ngx_mesh_route(ngx_mesh_route_t *route, const ngx_mesh_destination_t *d, ngx_http_request_t *r, ngx_pool_t *pool)
{
    ngx_int_t  rc;

    route->dry = NULL;

    rc = ngx_mesh_route_find(route, d, r, pool);

    if (pool->log->log_level >= NGX_LOG_DEBUG) {
        ngx_mesh_route_log(pool->log, route, d, rc);
    }

    return rc;
}


ngx_int_t
ngx_mesh_route_dry_run(ngx_mesh_dry_t *dry, const ngx_mesh_destination_t *d, ngx_http_request_t *r)
{
    ngx_int_t         rc;
    ngx_uint_t        branch = dry->branch;
    ngx_mesh_route_t  route = { .dry = dry };

    ngx_memzero(dry, sizeof(ngx_mesh_dry_t));
    dry->branch = branch;

    rc = ngx_mesh_route_find(&route, d, r, NULL);

    if (route.name) {
        dry->name = ngx_mesh_ffi_str(route.name);
    }

    if (route.cluster) {
        dry->cluster = ngx_mesh_ffi_str(&route.cluster->node.str);
    }

    return rc;
}
