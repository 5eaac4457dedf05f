#include "ngx_mesh_splits.h"

#include "ngx_mesh_names.h"
#include "ngx_mesh_rules.h"
#include "ngx_mesh_strings.h"
#include "split.h"

struct ngx_mesh_split_s {
    ngx_str_node_t        node;         /* the service */
    ngx_pool_t           *pool;
    ngx_mesh_rule_t       rule;         /* which requests it is for; without matches also for TCP */
    ngx_array_t           clusters;     /* ngx_str_t */
    ngx_array_t           shares;       /* split_share, of the cluster with the same index */
};

static ngx_mesh_names_t  ngx_mesh_splits;


ngx_mesh_split_t *
ngx_mesh_ffi_split_new(const char *service, size_t len)
{
    ngx_str_t          name = ngx_mesh_str(service, len);
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

    (void) ngx_mesh_str_copy(&split->node.str, (u_char *) (split + 1), &name);
    split->pool = pool;

    return split;
}


ngx_int_t
ngx_mesh_ffi_split_backend(ngx_mesh_split_t *split, const char *cluster, size_t len, uint32_t weight)
{
    ngx_str_t     str = ngx_mesh_str(cluster, len);
    ngx_str_t    *name;
    split_share  *share;

    name = ngx_array_push(&split->clusters);
    share = ngx_array_push(&split->shares);

    if (name == NULL || share == NULL || ngx_mesh_str_dup(name, split->pool, &str) != NGX_OK) {
        return NGX_ERROR;
    }

    share->weight = weight;

    return NGX_OK;
}


ngx_mesh_rule_t *
ngx_mesh_ffi_split_rule(ngx_mesh_split_t *split)
{
    return &split->rule;
}


static ngx_mesh_split_t *
ngx_mesh_split_find(const ngx_str_t *service)
{
    return (ngx_mesh_split_t *) ngx_mesh_names_find(&ngx_mesh_splits, service);
}


static void
ngx_mesh_split_delete(const ngx_str_t *service)
{
    ngx_mesh_split_t  *split;

    split = ngx_mesh_split_find(service);
    if (split) {
        ngx_mesh_names_delete(&ngx_mesh_splits, &split->node);
        ngx_destroy_pool(split->pool);
    }
}


void
ngx_mesh_ffi_split_delete(const char *service, size_t len)
{
    ngx_str_t  name = ngx_mesh_str(service, len);

    ngx_mesh_split_delete(&name);
}


void
ngx_mesh_ffi_split_put(ngx_mesh_split_t *split)
{
    ngx_mesh_split_delete(&split->node.str);

    ngx_mesh_names_insert(&ngx_mesh_splits, &split->node);
}


ngx_uint_t
ngx_mesh_splits_n(void)
{
    return ngx_mesh_splits.n;
}


/*
 * The cluster of a backend. For the root, which is the service itself, this is the cluster behind the address that was
 * dialled: of a headless service, each pod's address has a cluster of its own.
 */
static ngx_mesh_cluster_t *
ngx_mesh_split_cluster(ngx_mesh_split_t *split, ngx_uint_t i, ngx_mesh_cluster_t *root)
{
    ngx_str_t  *name = split->clusters.elts;

    return ngx_mesh_str_equal(&name[i], &split->node.str) ? root : ngx_mesh_cluster_find(&name[i]);
}


ngx_mesh_cluster_t *
ngx_mesh_split_choose(const ngx_str_t *service, ngx_mesh_cluster_t *root, ngx_http_request_t *r, ngx_mesh_dry_t *dry,
    const ngx_str_t **name)
{
    ngx_uint_t         i, n;
    split_share       *share;
    ngx_mesh_split_t  *split;

    split = ngx_mesh_split_find(service);

    if (split == NULL || !(r ? ngx_mesh_rule_matches(r, &split->rule, 0) : split->rule.matches.nelts == 0)) {
        return NULL;
    }

    share = split->shares.elts;
    n = split->shares.nelts;

    for (i = 0; i < n; i++) {
        share[i].usable = share[i].weight && ngx_mesh_cluster_usable(ngx_mesh_split_cluster(split, i, root));
    }

    if (dry) {
        i = dry->branch;
        dry->branches = n;
    } else {
        i = split_pick(share, n, (uint64_t) ngx_random() << 31 ^ (uint64_t) ngx_random());
    }

    if (i >= n) {
        return NULL;
    }

    if (dry) {
        dry->weight = share[i].weight;
        dry->usable = share[i].usable;
    }

    *name = (ngx_str_t *) split->clusters.elts + i;

    return ngx_mesh_split_cluster(split, i, root);
}
