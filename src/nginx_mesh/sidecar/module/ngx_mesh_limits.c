/*
 * The rate limits of inbound ports. What they count is in memory that the workers share, under the limits' names: a
 * worker that dies, or a state that changes, is no reset. It is only touched under the lock of its slab pool.
 */

#include <ngx_http.h>

#include "ngx_mesh_limits.h"

#define NGX_MESH_BUCKETS_SIZE  (1024 * 1024)
#define NGX_MESH_BUCKETS_IDLE  60000        /* milliseconds without a request after which a bucket may be freed */

typedef struct {
    ngx_str_node_t      node;               /* the name is behind the bucket */
    ngx_queue_t         queue;
    int64_t             seen;
    limit_rate          rate;               /* by which it counted last */
    limit_bucket        bucket;
} ngx_mesh_bucket_t;

typedef struct {
    ngx_rbtree_t        tree;
    ngx_rbtree_node_t   sentinel;
    ngx_queue_t         queue;              /* the one seen last is the first */
} ngx_mesh_buckets_t;

static ngx_slab_pool_t     *ngx_mesh_buckets_pool;
static ngx_mesh_buckets_t  *ngx_mesh_buckets;


static ngx_int_t
ngx_mesh_buckets_init(ngx_shm_zone_t *zone, void *old)
{
    ngx_mesh_buckets_pool = (ngx_slab_pool_t *) zone->shm.addr;

    if (old) {
        zone->data = old;
        ngx_mesh_buckets = old;
        return NGX_OK;
    }

    ngx_mesh_buckets = ngx_slab_alloc(ngx_mesh_buckets_pool, sizeof(ngx_mesh_buckets_t));
    if (ngx_mesh_buckets == NULL) {
        return NGX_ERROR;
    }

    ngx_rbtree_init(&ngx_mesh_buckets->tree, &ngx_mesh_buckets->sentinel, ngx_str_rbtree_insert_value);
    ngx_queue_init(&ngx_mesh_buckets->queue);

    ngx_mesh_buckets_pool->log_nomem = 0;
    zone->data = ngx_mesh_buckets;

    return NGX_OK;
}


ngx_int_t
ngx_mesh_limits_configure(ngx_conf_t *cf)
{
    ngx_shm_zone_t    *zone;
    static ngx_str_t   name = ngx_string("mesh_limits");

    zone = ngx_shared_memory_add(cf, &name, NGX_MESH_BUCKETS_SIZE, &ngx_http_mesh_module);
    if (zone == NULL) {
        return NGX_ERROR;
    }

    zone->init = ngx_mesh_buckets_init;

    return NGX_OK;
}


static void
ngx_mesh_bucket_free(ngx_mesh_bucket_t *b)
{
    ngx_queue_remove(&b->queue);
    ngx_rbtree_delete(&ngx_mesh_buckets->tree, &b->node.node);
    ngx_slab_free_locked(ngx_mesh_buckets_pool, b);
}


static void
ngx_mesh_buckets_free_idle(int64_t now)
{
    ngx_queue_t        *q, *next;
    ngx_mesh_bucket_t  *b;

    for (q = ngx_queue_last(&ngx_mesh_buckets->queue); q != ngx_queue_sentinel(&ngx_mesh_buckets->queue); q = next) {
        next = ngx_queue_prev(q);
        b = ngx_queue_data(q, ngx_mesh_bucket_t, queue);

        if (now - b->seen < NGX_MESH_BUCKETS_IDLE) {
            return;
        }

        if (limit_is_idle(&b->bucket, &b->rate, now)) {
            ngx_mesh_bucket_free(b);
        }
    }
}


/* Makes room at the cost of the limit that was asked longest ago; not of one of the request at hand. */
static ngx_uint_t
ngx_mesh_buckets_free_oldest(int64_t now)
{
    ngx_mesh_bucket_t  *b;

    if (ngx_queue_empty(&ngx_mesh_buckets->queue)) {
        return 0;
    }

    b = ngx_queue_data(ngx_queue_last(&ngx_mesh_buckets->queue), ngx_mesh_bucket_t, queue);

    if (b->seen == now) {
        return 0;
    }

    ngx_mesh_bucket_free(b);

    return 1;
}


static ngx_mesh_bucket_t *
ngx_mesh_bucket_new(const ngx_mesh_limit_t *limit, int64_t now)
{
    size_t              size = sizeof(ngx_mesh_bucket_t) + limit->name.len;
    ngx_mesh_bucket_t  *b;

    ngx_mesh_buckets_free_idle(now);

    do {
        b = ngx_slab_calloc_locked(ngx_mesh_buckets_pool, size);
    } while (b == NULL && ngx_mesh_buckets_free_oldest(now));

    if (b == NULL) {
        return NULL;
    }

    b->node.str.data = (u_char *) b + sizeof(ngx_mesh_bucket_t);
    b->node.str.len = limit->name.len;
    ngx_memcpy(b->node.str.data, limit->name.data, limit->name.len);

    b->node.node.key = limit->hash;
    ngx_rbtree_insert(&ngx_mesh_buckets->tree, &b->node.node);
    ngx_queue_insert_head(&ngx_mesh_buckets->queue, &b->queue);

    return b;
}


static ngx_mesh_bucket_t *
ngx_mesh_bucket_find(ngx_mesh_limit_t *limit)
{
    return (ngx_mesh_bucket_t *) ngx_str_rbtree_lookup(&ngx_mesh_buckets->tree, &limit->name, limit->hash);
}


/* NULL: out of memory. */
static ngx_mesh_bucket_t *
ngx_mesh_bucket(ngx_mesh_limit_t *limit, int64_t now)
{
    ngx_mesh_bucket_t  *b;

    b = ngx_mesh_bucket_find(limit);

    if (b) {
        ngx_queue_remove(&b->queue);
        ngx_queue_insert_head(&ngx_mesh_buckets->queue, &b->queue);

    } else {
        b = ngx_mesh_bucket_new(limit, now);
        if (b == NULL) {
            return NULL;
        }
    }

    b->seen = now;
    b->rate = limit->rate;

    return b;
}


ngx_mesh_limit_t *
ngx_mesh_limit_new(ngx_pool_t *pool, const ngx_str_t *name, size_t policy_len, const limit_rate *rate)
{
    ngx_mesh_limit_t  *limit;

    limit = ngx_pcalloc(pool, sizeof(ngx_mesh_limit_t));

    if (limit == NULL
        || ngx_mesh_rule_init(&limit->rule, pool) != NGX_OK
        || ngx_array_init(&limit->addresses, pool, 2, sizeof(struct in6_addr)) != NGX_OK)
    {
        return NULL;
    }

    limit->name.data = ngx_pstrdup(pool, (ngx_str_t *) name);
    if (limit->name.data == NULL) {
        return NULL;
    }

    limit->name.len = name->len;
    limit->policy.data = limit->name.data;
    limit->policy.len = policy_len;
    limit->hash = ngx_crc32_short(name->data, name->len);
    limit->rate = *rate;

    return limit;
}


/* FFI. The rule that says what the limit is for. */
ngx_mesh_rule_t *
ngx_mesh_ffi_limit_rule(ngx_mesh_limit_t *limit)
{
    return &limit->rule;
}


/* An IPv4 address as IPv6 writes it. */
static ngx_int_t
ngx_mesh_address(struct in6_addr *address, const struct sockaddr *sockaddr)
{
    switch (sockaddr->sa_family) {

    case AF_INET6:
        *address = ((struct sockaddr_in6 *) sockaddr)->sin6_addr;
        return NGX_OK;

    case AF_INET:
        ngx_memzero(address, sizeof(struct in6_addr));
        address->s6_addr[10] = address->s6_addr[11] = 0xff;
        ngx_memcpy(&address->s6_addr[12], &((struct sockaddr_in *) sockaddr)->sin_addr, 4);
        return NGX_OK;

    default:
        return NGX_DECLINED;
    }
}


/* FFI. An address of one of the limit's sources. NGX_DECLINED: it is none. */
ngx_int_t
ngx_mesh_ffi_limit_address(ngx_mesh_limit_t *limit, const u_char *text, size_t len)
{
    ngx_addr_t        addr;
    struct in6_addr  *address;

    if (ngx_parse_addr(limit->addresses.pool, &addr, (u_char *) text, len) != NGX_OK) {
        return NGX_DECLINED;
    }

    address = ngx_array_push(&limit->addresses);

    return address ? ngx_mesh_address(address, addr.sockaddr) : NGX_ERROR;
}


static int
ngx_mesh_address_compare(const void *one, const void *two)
{
    return ngx_memcmp(one, two, sizeof(struct in6_addr));
}


static ngx_uint_t
ngx_mesh_limit_is_at(ngx_mesh_limit_t *limit, const struct in6_addr *address)
{
    ngx_array_t  *known = &limit->addresses;

    if (!limit->sorted) {
        qsort(known->elts, known->nelts, sizeof(struct in6_addr), ngx_mesh_address_compare);
        limit->sorted = 1;
    }

    return bsearch(address, known->elts, known->nelts, sizeof(struct in6_addr), ngx_mesh_address_compare) != NULL;
}


/*
 * A limit is for a caller that proved one of its IDs (`named`) and calls from one of its addresses; of each policy's limits,
 * the first of these. `others` are for callers that no limit names so. Those of the result that have a `fit` are for the
 * caller at hand.
 */
static const ngx_array_t *
ngx_mesh_limits_choose(const ngx_array_t *named, const ngx_array_t *others, const struct sockaddr *sockaddr)
{
    ngx_str_t          *policy;
    ngx_uint_t          i, known;
    struct in6_addr     address;
    ngx_mesh_limit_t  **limit;

    policy = NULL;

    if (named) {
        limit = named->elts;
        known = (ngx_mesh_address(&address, sockaddr) == NGX_OK);

        for (i = 0; i < named->nelts; i++) {
            limit[i]->fit = known
                            && ngx_mesh_limit_is_at(limit[i], &address)
                            && !(policy && ngx_mesh_str_equal(policy, &limit[i]->policy));

            if (limit[i]->fit) {
                policy = &limit[i]->policy;
            }
        }
    }

    if (policy) {
        return named;
    }

    limit = others->elts;

    for (i = 0; i < others->nelts; i++) {
        limit[i]->fit = 1;
    }

    return others;
}


/* All limits are asked before any takes the request in. */
static ngx_int_t
ngx_mesh_limits_take(const ngx_array_t *limits, int64_t now, ngx_str_t *by)
{
    ngx_uint_t           i;
    ngx_int_t            wait, longest;
    ngx_mesh_limit_t   **limit = limits->elts;
    ngx_mesh_bucket_t   *b;

    for (i = 0; i < limits->nelts; i++) {

        if (!limit[i]->fit) {
            continue;
        }

        b = ngx_mesh_bucket(limit[i], now);

        if (b == NULL || !limit_admits(&b->bucket, &limit[i]->rate, now)) {
            *by = limit[i]->policy;
            return b ? NGX_BUSY : NGX_ERROR;
        }
    }

    longest = 0;

    for (i = 0; i < limits->nelts; i++) {

        if (!limit[i]->fit) {
            continue;
        }

        wait = limit_take(&ngx_mesh_bucket_find(limit[i])->bucket, &limit[i]->rate, now);

        if (wait > longest) {
            longest = wait;
            *by = limit[i]->policy;
        }
    }

    return longest;
}


/* Those of the result that have a `fit` concern the request; NULL: none does. */
static const ngx_array_t *
ngx_mesh_limits_concern(const ngx_array_t *named, const ngx_array_t *others, ngx_http_request_t *r)
{
    ngx_uint_t           i, any;
    ngx_mesh_limit_t   **limit;
    const ngx_array_t   *limits;

    limits = ngx_mesh_limits_choose(named, others, r->connection->sockaddr);
    limit = limits->elts;
    any = 0;

    for (i = 0; i < limits->nelts; i++) {

        if (limit[i]->fit && !ngx_mesh_rule_matches(r, &limit[i]->rule, 1)) {
            limit[i]->fit = 0;
        }

        any |= limit[i]->fit;
    }

    return any ? limits : NULL;
}


ngx_int_t
ngx_mesh_limits_wait(const ngx_array_t *named, const ngx_array_t *others, ngx_http_request_t *r, ngx_str_t *by)
{
    ngx_int_t           wait;
    const ngx_array_t  *limits;

    ngx_str_null(by);

    limits = ngx_mesh_limits_concern(named, others, r);
    if (limits == NULL) {
        return 0;
    }

    ngx_shmtx_lock(&ngx_mesh_buckets_pool->mutex);

    wait = ngx_mesh_limits_take(limits, (int64_t) ngx_current_msec, by);

    ngx_shmtx_unlock(&ngx_mesh_buckets_pool->mutex);

    if (wait == NGX_ERROR) {
        ngx_log_error(NGX_LOG_ALERT, r->connection->log, 0, "no memory to count the rate limit \"%V\"", by);
    }

    return wait < 0 ? NGX_BUSY : wait;
}


/* What limit_take would make of a bucket, on a copy of it. */
static void
ngx_mesh_limit_look(ngx_mesh_dry_limit_t *found, ngx_mesh_limit_t *limit, int64_t now)
{
    limit_bucket        bucket = { .used = 0 };
    ngx_mesh_bucket_t  *b;

    b = ngx_mesh_bucket_find(limit);
    if (b) {
        bucket = b->bucket;
    }

    found->name = limit->name;
    found->policy = limit->policy;
    found->rate = limit->rate.rate;
    found->burst = limit->rate.burst;
    found->delay = limit->rate.delay;
    found->admits = limit_admits(&bucket, &limit->rate, now);
    found->wait = limit_take(&bucket, &limit->rate, now);
    found->excess = bucket.excess;
}


ngx_uint_t
ngx_mesh_limits_look(const ngx_array_t *named, const ngx_array_t *others, ngx_http_request_t *r,
    ngx_mesh_dry_limit_t *found, ngx_uint_t max)
{
    ngx_uint_t           i, n;
    ngx_mesh_limit_t   **limit;
    const ngx_array_t   *limits;

    limits = ngx_mesh_limits_concern(named, others, r);
    if (limits == NULL) {
        return 0;
    }

    limit = limits->elts;
    n = 0;

    ngx_shmtx_lock(&ngx_mesh_buckets_pool->mutex);

    for (i = 0; i < limits->nelts; i++) {

        if (!limit[i]->fit) {
            continue;
        }

        if (n < max) {
            ngx_mesh_limit_look(&found[n], limit[i], (int64_t) ngx_current_msec);
        }

        n++;
    }

    ngx_shmtx_unlock(&ngx_mesh_buckets_pool->mutex);

    return n;
}
