#include "ngx_mesh_clusters.h"

#include "ngx_mesh_clock.h"
#include "ngx_mesh_lua.h"
#include "ngx_mesh_names.h"
#include "ngx_mesh_strings.h"

#include <openssl/sha.h>

static ngx_mesh_names_t  ngx_mesh_clusters;


ngx_mesh_cluster_t *
ngx_mesh_cluster_find(const ngx_str_t *name)
{
    return (ngx_mesh_cluster_t *) ngx_mesh_names_find(&ngx_mesh_clusters, name);
}


ngx_uint_t
ngx_mesh_cluster_usable(const ngx_mesh_cluster_t *cluster)
{
    return cluster && cluster->pools[0].n + cluster->pools[1].n != 0;
}


/* A cluster's endpoints are in a tree by the CRC32 of their names. */

static void
ngx_mesh_endpoint_insert_value(ngx_rbtree_node_t *temp, ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel)
{
    ngx_rbtree_node_t  **p;

    for ( ;; ) {
        /* Equal keys go to the right. Names are unique, and the lookup compares them. */
        p = node->key < temp->key ? &temp->left : &temp->right;

        if (*p == sentinel) {
            break;
        }

        temp = *p;
    }

    *p = node;
    node->parent = temp;
    node->left = sentinel;
    node->right = sentinel;
    ngx_rbt_red(node);
}


static ngx_mesh_endpoint_t *
ngx_mesh_endpoint_of(ngx_rbtree_node_t *node)
{
    return (ngx_mesh_endpoint_t *) ((u_char *) node - offsetof(ngx_mesh_endpoint_t, node));
}


static ngx_mesh_endpoint_t *
ngx_mesh_endpoint_find_from(ngx_mesh_cluster_t *cluster, ngx_rbtree_node_t *node, ngx_rbtree_key_t key,
    const ngx_str_t *name)
{
    ngx_mesh_endpoint_t  *e, *found;

    while (node != &cluster->sentinel) {

        if (key != node->key) {
            node = key < node->key ? node->left : node->right;
            continue;
        }

        e = ngx_mesh_endpoint_of(node);

        if (ngx_mesh_str_equal(&e->name, name)) {
            return e;
        }

        /* Rotations may have put an equal key on either side. */
        found = ngx_mesh_endpoint_find_from(cluster, node->left, key, name);
        if (found) {
            return found;
        }

        node = node->right;
    }

    return NULL;
}


static ngx_mesh_endpoint_t *
ngx_mesh_endpoint_find(ngx_mesh_cluster_t *cluster, const ngx_str_t *name)
{
    return ngx_mesh_endpoint_find_from(cluster, cluster->endpoints.root, ngx_crc32_short(name->data, name->len), name);
}


void
ngx_mesh_cluster_release(ngx_mesh_cluster_t *cluster)
{
    if (--cluster->refs) {
        return;
    }

    lb_pool_free(&cluster->pools[0]);
    lb_pool_free(&cluster->pools[1]);
    ngx_free(cluster);
}


void
ngx_mesh_endpoint_release(ngx_mesh_endpoint_t *e)
{
    if (--e->refs == 0) {
        if (e->counts) {
            e->counts_free(e->counts);
        }

        ngx_mesh_cluster_release(e->cluster);

        if (e->labels.data) {
            ngx_free(e->labels.data);
        }

        ngx_free(e);
    }
}


static void
ngx_mesh_endpoint_remove(ngx_mesh_cluster_t *cluster, ngx_mesh_endpoint_t *e)
{
    lb_pool_remove(&cluster->pools[e->tls], &e->lb);
    ngx_rbtree_delete(&cluster->endpoints, &e->node);
    ngx_mesh_endpoint_release(e);
}


ngx_int_t
ngx_mesh_ffi_cluster_put(const char *name, size_t len, ngx_uint_t method)
{
    ngx_str_t            str = ngx_mesh_str(name, len);
    ngx_mesh_cluster_t  *cluster;

    if (method >= LB_METHODS) {
        return NGX_ERROR;
    }

    cluster = ngx_mesh_cluster_find(&str);

    if (cluster == NULL) {
        cluster = ngx_mesh_alloc(sizeof(ngx_mesh_cluster_t), len);
        if (cluster == NULL) {
            return NGX_ERROR;
        }

        (void) ngx_mesh_str_copy(&cluster->node.str, (u_char *) (cluster + 1), &str);
        cluster->refs = 1;

        lb_pool_init(&cluster->pools[0], ngx_random() ^ (uint64_t) ngx_pid << 32);
        lb_pool_init(&cluster->pools[1], ngx_random() ^ (uint64_t) ngx_pid << 32);

        ngx_rbtree_init(&cluster->endpoints, &cluster->sentinel, ngx_mesh_endpoint_insert_value);
        ngx_mesh_names_insert(&ngx_mesh_clusters, &cluster->node);
    }

    cluster->method = method;

    return NGX_OK;
}


void
ngx_mesh_ffi_cluster_delete(const char *name, size_t len)
{
    ngx_str_t            str = ngx_mesh_str(name, len);
    ngx_mesh_cluster_t  *cluster;

    cluster = ngx_mesh_cluster_find(&str);
    if (cluster == NULL) {
        return;
    }

    while (cluster->endpoints.root != &cluster->sentinel) {
        ngx_mesh_endpoint_remove(cluster, ngx_mesh_endpoint_of(cluster->endpoints.root));
    }

    ngx_mesh_names_delete(&ngx_mesh_clusters, &cluster->node);
    ngx_mesh_cluster_release(cluster);
}


/* NULL: the cluster is not loaded, or has no such endpoint. */
static ngx_mesh_endpoint_t *
ngx_mesh_endpoint_find_in(const ngx_str_t *cluster_name, const ngx_str_t *name)
{
    ngx_mesh_cluster_t  *cluster;

    cluster = ngx_mesh_cluster_find(cluster_name);

    return cluster ? ngx_mesh_endpoint_find(cluster, name) : NULL;
}


void
ngx_mesh_ffi_endpoint_delete(const char *cluster, size_t cluster_len, const char *name, size_t len, const char *labels,
    size_t labels_len)
{
    ngx_str_t             cluster_str = ngx_mesh_str(cluster, cluster_len);
    ngx_str_t             str = ngx_mesh_str(name, len);
    ngx_mesh_endpoint_t  *e;

    e = ngx_mesh_endpoint_find_in(&cluster_str, &str);
    if (e == NULL) {
        return;
    }

    if (e->refs > 1) {
        e->labels.data = ngx_alloc(labels_len, ngx_cycle->log);

        if (e->labels.data) {
            e->labels.len = labels_len;
            ngx_memcpy(e->labels.data, labels, labels_len);
        }
    }

    ngx_mesh_endpoint_remove(e->cluster, e);
}


/* Reads `name` ("ip:port") as a socket address. NGX_DECLINED: it is none. */
static ngx_int_t
ngx_mesh_parse_address(const ngx_str_t *name, ngx_mesh_sockaddr_t *sockaddr, socklen_t *socklen)
{
    ngx_int_t    rc;
    ngx_addr_t   addr;
    ngx_pool_t  *pool;

    pool = ngx_create_pool(512, ngx_cycle->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_parse_addr_port(pool, &addr, name->data, name->len);

    if (rc == NGX_OK && ngx_inet_get_port(addr.sockaddr) != 0 && addr.socklen <= sizeof(ngx_mesh_sockaddr_t)) {
        ngx_memcpy(sockaddr, addr.sockaddr, addr.socklen);
        *socklen = addr.socklen;

    } else if (rc == NGX_OK) {
        rc = NGX_DECLINED;
    }

    ngx_destroy_pool(pool);

    return rc;
}


ngx_int_t
ngx_mesh_ffi_address_check(const char *address, size_t len)
{
    ngx_str_t                str = ngx_mesh_str(address, len);
    socklen_t                socklen;
    ngx_mesh_sockaddr_t      sockaddr;

    return ngx_mesh_parse_address(&str, &sockaddr, &socklen);
}


/* An endpoint in no cluster yet. NGX_DECLINED: `name` is not an address and port. */
static ngx_int_t
ngx_mesh_endpoint_new(ngx_mesh_endpoint_t **endpoint, const ngx_str_t *name, ngx_uint_t tls, const ngx_str_t *id)
{
    u_char               *p;
    ngx_int_t             rc;
    ngx_mesh_endpoint_t  *e;

    e = ngx_mesh_alloc(sizeof(ngx_mesh_endpoint_t), name->len + id->len);
    if (e == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_mesh_parse_address(name, &e->sockaddr, &e->socklen);
    if (rc != NGX_OK) {
        ngx_free(e);
        return rc;
    }

    p = ngx_mesh_str_copy(&e->name, (u_char *) (e + 1), name);
    (void) ngx_mesh_str_copy(&e->spiffe_id, p, id);
    SHA256(id->data, id->len, e->id_digest);

    e->refs = 1;
    e->tls = tls;
    e->node.key = ngx_crc32_short(e->name.data, e->name.len);
    *endpoint = e;

    return NGX_OK;
}


ngx_int_t
ngx_mesh_ffi_endpoint_put(const char *cluster, size_t cluster_len, const char *name, size_t len, ngx_uint_t tls,
    const char *id, size_t id_len)
{
    ngx_int_t             rc;
    ngx_str_t             cluster_str = ngx_mesh_str(cluster, cluster_len);
    ngx_str_t             str = ngx_mesh_str(name, len);
    ngx_str_t             id_str = ngx_mesh_str(id, id_len);
    ngx_mesh_cluster_t   *found;
    ngx_mesh_endpoint_t  *e;

    found = ngx_mesh_cluster_find(&cluster_str);
    if (found == NULL) {
        return NGX_ERROR;
    }

    e = ngx_mesh_endpoint_find(found, &str);

    if (e) {
        if (e->tls == !!tls && ngx_mesh_str_equal(&e->spiffe_id, &id_str)) {
            return NGX_OK;
        }

        ngx_mesh_endpoint_remove(found, e);
    }

    rc = ngx_mesh_endpoint_new(&e, &str, !!tls, &id_str);
    if (rc != NGX_OK) {
        return rc;
    }

    if (lb_pool_add(&found->pools[e->tls], &e->lb) != 0) {
        ngx_free(e);
        return NGX_ERROR;
    }

    e->cluster = found;
    found->refs++;

    ngx_rbtree_insert(&found->endpoints, &e->node);

    return NGX_OK;
}


int64_t
ngx_mesh_ffi_endpoint_down(const char *cluster, size_t cluster_len, const char *name, size_t len)
{
    ngx_str_t             cluster_str = ngx_mesh_str(cluster, cluster_len);
    ngx_str_t             str = ngx_mesh_str(name, len);
    ngx_mesh_endpoint_t  *e;

    e = ngx_mesh_endpoint_find_in(&cluster_str, &str);

    return e ? (lb_down(&e->lb, ngx_mesh_now_us()) + 999) / 1000 : 0;
}
