/*
 * The rate limits of inbound ports, and the buckets by which they count.
 */

#include <ngx_http.h>

#include "ngx_mesh_limits.h"

typedef struct {
    ngx_mesh_rule_t     rule;
    limit_rate          rate;
    limit_bucket       *bucket;
} ngx_mesh_limit_t;

/* Buckets outlive policies, so that a changed state is no reset of limits. */
typedef struct {
    ngx_str_node_t      node;
    limit_bucket        bucket;
} ngx_mesh_bucket_t;

static ngx_rbtree_t             ngx_mesh_buckets;
static ngx_rbtree_node_t        ngx_mesh_buckets_sentinel;


static limit_bucket *
ngx_mesh_bucket(const ngx_str_t *name)
{
    uint32_t            hash;
    ngx_mesh_bucket_t  *b;

    if (ngx_mesh_buckets.root == NULL) {
        ngx_rbtree_init(&ngx_mesh_buckets, &ngx_mesh_buckets_sentinel, ngx_str_rbtree_insert_value);
    }

    hash = ngx_crc32_short(name->data, name->len);
    b = (ngx_mesh_bucket_t *) ngx_str_rbtree_lookup(&ngx_mesh_buckets, (ngx_str_t *) name, hash);

    if (b == NULL) {
        b = ngx_calloc(sizeof(ngx_mesh_bucket_t) + name->len, ngx_cycle->log);
        if (b == NULL) {
            return NULL;
        }

        b->node.str.data = (u_char *) b + sizeof(ngx_mesh_bucket_t);
        b->node.str.len = name->len;
        ngx_memcpy(b->node.str.data, name->data, name->len);

        b->node.node.key = hash;
        ngx_rbtree_insert(&ngx_mesh_buckets, &b->node.node);
    }

    return &b->bucket;
}


ngx_int_t
ngx_mesh_limits_init(ngx_array_t *limits, ngx_pool_t *pool)
{
    return ngx_array_init(limits, pool, 2, sizeof(ngx_mesh_limit_t));
}


ngx_mesh_rule_t *
ngx_mesh_limits_add(ngx_array_t *limits, const ngx_str_t *name, const limit_rate *rate)
{
    ngx_mesh_limit_t  *limit;

    limit = ngx_array_push(limits);
    if (limit == NULL || ngx_mesh_rule_init(&limit->rule, limits->pool) != NGX_OK) {
        return NULL;
    }

    limit->rate = *rate;
    limit->bucket = ngx_mesh_bucket(name);

    return limit->bucket ? &limit->rule : NULL;
}


double
ngx_mesh_limits_wait(const ngx_array_t *limits, const ngx_str_t *id, ngx_http_request_t *r)
{
    double             seconds, wait;
    ngx_uint_t         i, named;
    ngx_mesh_limit_t  *limit = limits->elts;

    named = 0;

    for (i = 0; i < limits->nelts; i++) {
        named |= ngx_mesh_rule_names(&limit[i].rule, id);
    }

    wait = 0;

    for (i = 0; i < limits->nelts; i++) {

        /* one without sources is for callers that no other limit names */
        if (limit[i].rule.sources.nelts ? !ngx_mesh_rule_names(&limit[i].rule, id) : named) {
            continue;
        }

        if (!ngx_mesh_rule_matches(r, &limit[i].rule, 1)) {
            continue;
        }

        seconds = limit_take(limit[i].bucket, &limit[i].rate, (int64_t) ngx_current_msec);

        if (seconds < 0) {
            return -1;
        }

        wait = ngx_max(wait, seconds);
    }

    return wait;
}
