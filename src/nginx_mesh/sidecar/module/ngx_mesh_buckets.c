#include "ngx_mesh_buckets.h"

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
    ngx_queue_t         queue;              /* the one that counted last is the first */
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
ngx_mesh_buckets_configure(ngx_conf_t *cf, void *tag)
{
    ngx_shm_zone_t    *zone;
    static ngx_str_t   name = ngx_string("mesh_limits");

    zone = ngx_shared_memory_add(cf, &name, NGX_MESH_BUCKETS_SIZE, tag);
    if (zone == NULL) {
        return NGX_ERROR;
    }

    zone->init = ngx_mesh_buckets_init;

    return NGX_OK;
}


void
ngx_mesh_buckets_lock(void)
{
    ngx_shmtx_lock(&ngx_mesh_buckets_pool->mutex);
}


void
ngx_mesh_buckets_unlock(void)
{
    ngx_shmtx_unlock(&ngx_mesh_buckets_pool->mutex);
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


/* Makes room at the cost of the limit that was asked longest ago, but not of one that the request at hand asks. */
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
ngx_mesh_bucket_new(const ngx_str_t *name, uint32_t hash, int64_t now)
{
    size_t              size = sizeof(ngx_mesh_bucket_t) + name->len;
    ngx_mesh_bucket_t  *b;

    ngx_mesh_buckets_free_idle(now);

    do {
        b = ngx_slab_calloc_locked(ngx_mesh_buckets_pool, size);
    } while (b == NULL && ngx_mesh_buckets_free_oldest(now));

    if (b == NULL) {
        return NULL;
    }

    b->node.str.data = (u_char *) b + sizeof(ngx_mesh_bucket_t);
    b->node.str.len = name->len;
    ngx_memcpy(b->node.str.data, name->data, name->len);

    b->node.node.key = hash;
    ngx_rbtree_insert(&ngx_mesh_buckets->tree, &b->node.node);
    ngx_queue_insert_head(&ngx_mesh_buckets->queue, &b->queue);

    return b;
}


static ngx_mesh_bucket_t *
ngx_mesh_bucket_lookup(ngx_str_t *name, uint32_t hash)
{
    return (ngx_mesh_bucket_t *) ngx_str_rbtree_lookup(&ngx_mesh_buckets->tree, name, hash);
}


limit_bucket *
ngx_mesh_bucket_find(ngx_str_t *name, uint32_t hash)
{
    ngx_mesh_bucket_t  *b;

    b = ngx_mesh_bucket_lookup(name, hash);

    return b ? &b->bucket : NULL;
}


limit_bucket *
ngx_mesh_bucket_open(ngx_str_t *name, uint32_t hash, const limit_rate *rate, int64_t now)
{
    ngx_mesh_bucket_t  *b;

    b = ngx_mesh_bucket_lookup(name, hash);

    if (b) {
        ngx_queue_remove(&b->queue);
        ngx_queue_insert_head(&ngx_mesh_buckets->queue, &b->queue);

    } else {
        b = ngx_mesh_bucket_new(name, hash, now);
        if (b == NULL) {
            return NULL;
        }
    }

    b->seen = now;
    b->rate = *rate;

    return &b->bucket;
}
