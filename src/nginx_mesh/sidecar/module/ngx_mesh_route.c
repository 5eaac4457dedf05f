/*
 * Where a request or connection to a service goes: past the service's circuit breaker, through its split, past the
 * breaker of the backend that was chosen, to a cluster. Shared by HTTP and TCP.
 *
 * The table has the services that are in use and have a split or a breaker, with all clusters that these name
 * (lua/mesh/state.lua): one that is not there has no endpoints.
 */

#include "ngx_mesh.h"
#include "ngx_mesh_rules.h"
#include "split.h"

typedef struct {
    ngx_str_node_t        node;         /* of ngx_mesh_breakers, while it is in force */
    ngx_uint_t            refs;
    breaker               breaker;
    ngx_str_t             fallback;     /* a cluster; empty: none */
} ngx_mesh_breaker_t;

struct ngx_mesh_split_s {
    ngx_str_node_t        node;
    ngx_pool_t           *pool;
    ngx_mesh_rule_t       rule;         /* which requests it is for; without matches also for TCP */
    ngx_array_t           clusters;     /* ngx_str_t */
    ngx_array_t           shares;       /* split_share, of the cluster with the same index */
};

/* A request's promise to tell a breaker how it ended. */
typedef struct {
    ngx_mesh_breaker_t   *breaker;      /* a reference */
    uint64_t              ticket;
} ngx_mesh_guard_t;

struct ngx_mesh_guards_s {
    ngx_mesh_guard_t      guard[2];     /* the service's, the backend's */
    ngx_uint_t            n;
};

static ngx_mesh_names_t  ngx_mesh_splits;
static ngx_mesh_names_t  ngx_mesh_breakers;


static int64_t
ngx_mesh_now_ms(void)
{
    return ngx_mesh_now_us() / 1000;
}


static void
ngx_mesh_breaker_release(ngx_mesh_breaker_t *b)
{
    if (--b->refs == 0) {
        breaker_free(&b->breaker);
        ngx_free(b->fallback.data);
        ngx_free(b);
    }
}


static ngx_mesh_breaker_t *
ngx_mesh_breaker_find(const ngx_str_t *service)
{
    return (ngx_mesh_breaker_t *) ngx_mesh_names_find(&ngx_mesh_breakers, service);
}


/* FFI */
void
ngx_mesh_ffi_breaker_delete(const u_char *service, size_t len)
{
    ngx_str_t            name = { len, (u_char *) service };
    ngx_mesh_breaker_t  *b;

    b = ngx_mesh_breaker_find(&name);
    if (b) {
        ngx_mesh_names_delete(&ngx_mesh_breakers, &b->node);
        ngx_mesh_breaker_release(b);
    }
}


/* FFI. A breaker that trips as before goes on as it is. */
ngx_int_t
ngx_mesh_ffi_breaker_put(const u_char *service, size_t len, uint32_t errors, int64_t timeout, const u_char *fallback,
    size_t fallback_len)
{
    u_char              *copy;
    ngx_str_t            name = { len, (u_char *) service };
    ngx_mesh_breaker_t  *b;

    copy = ngx_alloc(fallback_len + 1, ngx_cycle->log);
    if (copy == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(copy, fallback, fallback_len);

    b = ngx_mesh_breaker_find(&name);

    if (b && b->breaker.errors == errors && b->breaker.timeout == timeout) {
        ngx_free(b->fallback.data);
        b->fallback.data = copy;
        b->fallback.len = fallback_len;
        return NGX_OK;
    }

    b = ngx_mesh_alloc(sizeof(ngx_mesh_breaker_t), len);

    if (b == NULL || breaker_init(&b->breaker, errors, timeout) != 0) {
        ngx_free(b);
        ngx_free(copy);
        return NGX_ERROR;
    }

    ngx_mesh_ffi_breaker_delete(service, len);

    ngx_mesh_copy(&b->node.str, (u_char *) b + sizeof(ngx_mesh_breaker_t), service, len);
    b->fallback.data = copy;
    b->fallback.len = fallback_len;
    b->refs = 1;

    ngx_mesh_names_insert(&ngx_mesh_breakers, &b->node);

    return NGX_OK;
}


/* FFI. The state of the service's breaker (breaker_state). NGX_ERROR: it has none. */
ngx_int_t
ngx_mesh_ffi_breaker_state(const u_char *service, size_t len)
{
    ngx_str_t            name = { len, (u_char *) service };
    ngx_mesh_breaker_t  *b;

    b = ngx_mesh_breaker_find(&name);

    return b ? (ngx_int_t) breaker_seen(&b->breaker, ngx_mesh_now_ms()) : NGX_ERROR;
}


/* FFI. How often the service's breaker opened since the last call. */
ngx_uint_t
ngx_mesh_ffi_breaker_trips_take(const u_char *service, size_t len)
{
    ngx_str_t            name = { len, (u_char *) service };
    ngx_uint_t           trips;
    ngx_mesh_breaker_t  *b;

    b = ngx_mesh_breaker_find(&name);
    if (b == NULL) {
        return 0;
    }

    trips = b->breaker.trips;
    b->breaker.trips = 0;

    return trips;
}


/* FFI. NULL: out of memory. What is put in follows; then it is put in force. */
ngx_mesh_split_t *
ngx_mesh_ffi_split_new(const u_char *service, size_t len)
{
    ngx_pool_t        *pool;
    ngx_mesh_split_t  *split;

    pool = ngx_create_pool(512, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    split = ngx_pcalloc(pool, sizeof(ngx_mesh_split_t) + len);

    if (split == NULL
        || ngx_mesh_rule_init(&split->rule, pool) != NGX_OK
        || ngx_array_init(&split->clusters, pool, 2, sizeof(ngx_str_t)) != NGX_OK
        || ngx_array_init(&split->shares, pool, 2, sizeof(split_share)) != NGX_OK)
    {
        ngx_destroy_pool(pool);
        return NULL;
    }

    ngx_mesh_copy(&split->node.str, (u_char *) split + sizeof(ngx_mesh_split_t), service, len);
    split->pool = pool;

    return split;
}


/* FFI */
ngx_int_t
ngx_mesh_ffi_split_backend(ngx_mesh_split_t *split, const u_char *cluster, size_t len, uint32_t weight)
{
    u_char       *copy;
    ngx_str_t    *name;
    split_share  *share;

    name = ngx_array_push(&split->clusters);
    share = ngx_array_push(&split->shares);
    copy = ngx_pnalloc(split->pool, len);

    if (name == NULL || share == NULL || copy == NULL) {
        return NGX_ERROR;
    }

    ngx_mesh_copy(name, copy, cluster, len);
    share->weight = weight;

    return NGX_OK;
}


/* FFI */
void
ngx_mesh_ffi_split_delete(const u_char *service, size_t len)
{
    ngx_str_t          name = { len, (u_char *) service };
    ngx_mesh_split_t  *split;

    split = (ngx_mesh_split_t *) ngx_mesh_names_find(&ngx_mesh_splits, &name);
    if (split) {
        ngx_mesh_names_delete(&ngx_mesh_splits, &split->node);
        ngx_destroy_pool(split->pool);
    }
}


/* FFI. To be filled before the split is put in force. */
ngx_mesh_rule_t *
ngx_mesh_ffi_split_rule(ngx_mesh_split_t *split)
{
    return &split->rule;
}


/* FFI */
void
ngx_mesh_ffi_split_put(ngx_mesh_split_t *split)
{
    ngx_mesh_ffi_split_delete(split->node.str.data, split->node.str.len);

    ngx_mesh_names_insert(&ngx_mesh_splits, &split->node);
}


static ngx_uint_t
ngx_mesh_cluster_usable(const ngx_mesh_cluster_t *cluster)
{
    return cluster && cluster->pools[0].n + cluster->pools[1].n != 0;
}


/* The root's own cluster is behind the address that was dialled: of a headless service, that is one pod's. */
static ngx_mesh_cluster_t *
ngx_mesh_split_cluster(ngx_mesh_split_t *split, ngx_uint_t i, ngx_mesh_cluster_t *root)
{
    ngx_str_t  *name = split->clusters.elts;

    return ngx_mesh_str_equal(&name[i], &split->node.str) ? root : ngx_mesh_cluster_find(&name[i]);
}


/* Changes the route when the request goes to a backend. */
static void
ngx_mesh_split(ngx_mesh_route_t *route, const ngx_str_t *service, ngx_http_request_t *r)
{
    ngx_uint_t         i, n;
    split_share       *share;
    ngx_mesh_split_t  *split;

    split = (ngx_mesh_split_t *) ngx_mesh_names_find(&ngx_mesh_splits, service);

    if (split == NULL || !(r ? ngx_mesh_rule_matches(r, &split->rule, 0) : split->rule.matches.nelts == 0)) {
        return;
    }

    share = split->shares.elts;
    n = split->shares.nelts;

    for (i = 0; i < n; i++) {
        share[i].usable = share[i].weight
                          && ngx_mesh_cluster_usable(ngx_mesh_split_cluster(split, i, route->cluster));
    }

    if (route->dry) {
        i = route->dry->branch;
        route->dry->branches = n;
    } else {
        i = split_pick(share, n, (uint64_t) ngx_random() << 31 ^ (uint64_t) ngx_random());
    }

    if (i < n) {
        if (route->dry) {
            route->dry->weight = share[i].weight;
            route->dry->usable = share[i].usable;
        }

        route->cluster = ngx_mesh_split_cluster(split, i, route->cluster);
        route->name = (ngx_str_t *) split->clusters.elts + i;
    }
}


static void
ngx_mesh_guards_cleanup(void *data)
{
    ngx_mesh_guards_t  *guards = data;

    ngx_mesh_guards_end(guards, BREAKER_UNKNOWN);
}


static ngx_mesh_guards_t *
ngx_mesh_guards(ngx_pool_t *pool)
{
    ngx_mesh_guards_t   *guards;
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(pool, sizeof(ngx_mesh_guards_t));
    if (cln == NULL) {
        return NULL;
    }

    guards = cln->data;
    guards->n = 0;
    cln->handler = ngx_mesh_guards_cleanup;

    return guards;
}


/* NGX_OK: the breaker lets pass, and hears how it ends; NGX_DECLINED: it does not. */
static ngx_int_t
ngx_mesh_breaker_ask(ngx_mesh_route_t *route, ngx_mesh_breaker_t *b, ngx_pool_t *pool)
{
    ngx_mesh_guard_t  *guard;

    if (route->guards == NULL) {
        route->guards = ngx_mesh_guards(pool);
        if (route->guards == NULL) {
            return NGX_ERROR;
        }
    }

    guard = &route->guards->guard[route->guards->n];

    if (!breaker_admit(&b->breaker, &guard->ticket, ngx_mesh_now_ms())) {
        return NGX_DECLINED;
    }

    guard->breaker = b;
    b->refs++;
    route->guards->n++;

    return NGX_OK;
}


/* Whether it would let pass. */
static ngx_int_t
ngx_mesh_breaker_look(ngx_mesh_dry_t *dry, ngx_mesh_breaker_t *b)
{
    int64_t                  now = ngx_mesh_now_ms();
    ngx_mesh_dry_breaker_t  *seen;

    seen = &dry->breakers[dry->nbreakers++];
    seen->service = b->node.str;
    seen->state = breaker_seen(&b->breaker, now);
    seen->wait = breaker_wait(&b->breaker, now);

    return seen->wait ? NGX_DECLINED : NGX_OK;
}


/* NGX_OK: the breaker of the service, if it has one, lets pass; NGX_DONE: its fallback takes over; NGX_ABORT: nobody. */
static ngx_int_t
ngx_mesh_break(ngx_mesh_route_t *route, const ngx_str_t *service, ngx_pool_t *pool)
{
    ngx_int_t            rc;
    ngx_mesh_breaker_t  *b;

    b = ngx_mesh_breaker_find(service);

    if (b == NULL) {
        return NGX_OK;
    }

    rc = route->dry ? ngx_mesh_breaker_look(route->dry, b) : ngx_mesh_breaker_ask(route, b, pool);
    if (rc != NGX_DECLINED) {
        return rc;
    }

    route->cluster = ngx_mesh_cluster_find(&b->fallback);
    route->name = &b->node.str;

    return ngx_mesh_cluster_usable(route->cluster) ? NGX_DONE : NGX_ABORT;
}


static ngx_int_t
ngx_mesh_route_service(ngx_mesh_route_t *route, const ngx_str_t *service, ngx_http_request_t *r, ngx_pool_t *pool)
{
    ngx_int_t  rc;

    rc = ngx_mesh_break(route, service, pool);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_mesh_split(route, service, r);

    return ngx_mesh_str_equal(route->name, service) ? NGX_OK : ngx_mesh_break(route, route->name, pool);
}


static ngx_int_t
ngx_mesh_route_find(ngx_mesh_route_t *route, const ngx_mesh_destination_t *d, ngx_http_request_t *r, ngx_pool_t *pool)
{
    ngx_int_t  rc;

    route->cluster = ngx_mesh_cluster_find(&d->cluster);
    route->guards = NULL;

    if (route->cluster == NULL) {
        return NGX_DECLINED;
    }

    if (ngx_mesh_splits.n + ngx_mesh_breakers.n == 0) {
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

    if (route->guards) {
        ngx_mesh_guards_end(route->guards, BREAKER_UNKNOWN);
    }

    return rc;
}


ngx_int_t
ngx_mesh_route(ngx_mesh_route_t *route, const ngx_mesh_destination_t *d, ngx_http_request_t *r, ngx_pool_t *pool)
{
    route->dry = NULL;

    return ngx_mesh_route_find(route, d, r, pool);
}


ngx_int_t
ngx_mesh_route_dry(ngx_mesh_dry_t *dry, const ngx_mesh_destination_t *d, ngx_http_request_t *r)
{
    ngx_int_t         rc;
    ngx_uint_t        branch = dry->branch;
    ngx_mesh_route_t  route = { .dry = dry };

    ngx_memzero(dry, sizeof(ngx_mesh_dry_t));
    dry->branch = branch;

    rc = ngx_mesh_route_find(&route, d, r, NULL);

    if (route.name) {
        dry->name = *route.name;
    }

    if (route.cluster) {
        dry->cluster = route.cluster->node.str;
    }

    return rc;
}


void
ngx_mesh_guards_begun(ngx_mesh_guards_t *guards)
{
    ngx_uint_t  i;

    for (i = 0; i < guards->n; i++) {
        breaker_begun(&guards->guard[i].breaker->breaker, &guards->guard[i].ticket);
    }
}


void
ngx_mesh_guards_end(ngx_mesh_guards_t *guards, breaker_outcome outcome)
{
    ngx_mesh_guard_t  *guard;

    while (guards->n) {
        guard = &guards->guard[--guards->n];

        breaker_end(&guard->breaker->breaker, guard->ticket, outcome, ngx_mesh_now_ms());
        ngx_mesh_breaker_release(guard->breaker);
    }
}
