/* The tables of this worker: destinations, clusters with their endpoints, inbound ports. */

#include "ngx_mesh.h"

#include <openssl/sha.h>


ngx_mesh_settings_t      ngx_mesh_settings;

ngx_conf_enum_t          ngx_mesh_directions[] = {
    { ngx_string("outbound"), NGX_MESH_OUTBOUND },
    { ngx_string("inbound"), NGX_MESH_INBOUND },
    { ngx_null_string, 0 }
};

static ngx_mesh_names_t  ngx_mesh_destinations;
static ngx_mesh_names_t  ngx_mesh_clusters;

static struct {
    u_char              protocols;
    ngx_mesh_policy_t  *policy;
} ngx_mesh_inbound[65536];

ngx_str_node_t *
ngx_mesh_names_find(ngx_mesh_names_t *names, const ngx_str_t *name)
{
    if (names->tree.root == NULL) {
        ngx_rbtree_init(&names->tree, &names->sentinel, ngx_str_rbtree_insert_value);
        return NULL;
    }

    return ngx_str_rbtree_lookup(&names->tree, (ngx_str_t *) name, ngx_crc32_short(name->data, name->len));
}


void
ngx_mesh_names_insert(ngx_mesh_names_t *names, ngx_str_node_t *node)
{
    node->node.key = ngx_crc32_short(node->str.data, node->str.len);
    ngx_rbtree_insert(&names->tree, &node->node);
    names->n++;
}


void
ngx_mesh_names_delete(ngx_mesh_names_t *names, ngx_str_node_t *node)
{
    ngx_rbtree_delete(&names->tree, &node->node);
    names->n--;
}


void *
ngx_mesh_alloc(size_t size, size_t strings)
{
    return ngx_calloc(size + strings, ngx_cycle->log);
}


u_char *
ngx_mesh_copy(ngx_str_t *to, u_char *room, const u_char *data, size_t len)
{
    to->data = room;
    to->len = len;

    return ngx_cpymem(room, data, len);
}


ngx_uint_t
ngx_mesh_str_equal(const ngx_str_t *a, const ngx_str_t *b)
{
    return a->len == b->len && ngx_memcmp(a->data, b->data, a->len) == 0;
}


ngx_mesh_destination_t *
ngx_mesh_destination_find(const ngx_str_t *address)
{
    return (ngx_mesh_destination_t *) ngx_mesh_names_find(&ngx_mesh_destinations, address);
}


ngx_mesh_cluster_t *
ngx_mesh_cluster_find(const ngx_str_t *name)
{
    return (ngx_mesh_cluster_t *) ngx_mesh_names_find(&ngx_mesh_clusters, name);
}


ngx_uint_t
ngx_mesh_inbound_find(in_port_t port)
{
    return ngx_mesh_inbound[port].protocols;
}


ngx_mesh_policy_t *
ngx_mesh_inbound_policy(in_port_t port)
{
    return ngx_mesh_inbound[port].policy;
}


/* FFI */
void
ngx_mesh_ffi_settings(ngx_uint_t mode, ngx_uint_t json_log, ngx_uint_t log_level, int64_t body_limit)
{
    ngx_uint_t         i;
    ngx_listening_t   *ls;
    ngx_connection_t  *c;

    ngx_mesh_settings.ready = 1;
    ngx_mesh_settings.mode = mode;
    ngx_mesh_settings.json_log = json_log;
    ngx_mesh_settings.body_limit = body_limit;

    /*
     * There is one error_log, at the top of nginx.conf; connections copy its level from their listening socket. Those
     * that are open already may be for hours.
     */

    ngx_cycle->log->log_level = log_level;

    ls = ngx_cycle->listening.elts;

    for (i = 0; i < ngx_cycle->listening.nelts; i++) {
        ls[i].log.log_level = log_level;
    }

    c = ngx_cycle->connections;

    for (i = 0; i < ngx_cycle->connection_n; i++) {
        if (c[i].fd != (ngx_socket_t) -1 && c[i].log) {
            c[i].log->log_level = log_level;
        }
    }

    ngx_mesh_rights_changed();
}


/* FFI. The policy becomes the table's. */
void
ngx_mesh_ffi_inbound(ngx_uint_t port, ngx_uint_t protocols, ngx_mesh_policy_t *policy)
{
    ngx_mesh_policy_free(ngx_mesh_inbound[port & 0xffff].policy);

    ngx_mesh_inbound[port & 0xffff].protocols = (u_char) protocols;
    ngx_mesh_inbound[port & 0xffff].policy = policy;

    ngx_mesh_rights_changed();
}


/* FFI */
void
ngx_mesh_ffi_destination_delete(const u_char *address, size_t len)
{
    ngx_str_t                name = { len, (u_char *) address };
    ngx_mesh_destination_t  *d;

    d = ngx_mesh_destination_find(&name);
    if (d) {
        ngx_mesh_names_delete(&ngx_mesh_destinations, &d->node);
        ngx_free(d);
    }
}


/* FFI */
ngx_int_t
ngx_mesh_ffi_destination_put(const u_char *address, size_t address_len, ngx_uint_t protocols, const u_char *cluster,
    size_t cluster_len, const u_char *service, size_t service_len)
{
    u_char                  *p;
    ngx_mesh_destination_t  *d;

    d = ngx_mesh_alloc(sizeof(ngx_mesh_destination_t), address_len + cluster_len + service_len);
    if (d == NULL) {
        return NGX_ERROR;
    }

    ngx_mesh_ffi_destination_delete(address, address_len);

    p = ngx_mesh_copy(&d->node.str, (u_char *) d + sizeof(ngx_mesh_destination_t), address, address_len);
    p = ngx_mesh_copy(&d->cluster, p, cluster, cluster_len);
    ngx_mesh_copy(&d->service, p, service, service_len);
    d->protocols = protocols;

    ngx_mesh_names_insert(&ngx_mesh_destinations, &d->node);

    return NGX_OK;
}


/* Endpoints of a cluster are found by name: few enough that comparing in the balanced tree is cheap. */

static void
ngx_mesh_endpoint_insert_value(ngx_rbtree_node_t *temp, ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel)
{
    ngx_rbtree_node_t  **p;

    for ( ;; ) {
        /* equal keys go right; names are unique, lookup compares them */
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

        if (e->name.len == name->len && ngx_memcmp(e->name.data, name->data, name->len) == 0) {
            return e;
        }

        /* rotations may put equal keys on either side */
        found = ngx_mesh_endpoint_find_from(cluster, node->left, key, name);
        if (found) {
            return found;
        }

        node = node->right;
    }

    return NULL;
}


ngx_mesh_endpoint_t *
ngx_mesh_endpoint_find(ngx_mesh_cluster_t *cluster, const ngx_str_t *name)
{
    return ngx_mesh_endpoint_find_from(cluster, cluster->endpoints.root, ngx_crc32_short(name->data, name->len), name);
}


void
ngx_mesh_endpoint_release(ngx_mesh_endpoint_t *e)
{
    if (--e->refs == 0) {
        ngx_mesh_counts_free(e);
        ngx_mesh_cluster_release(e->cluster);

        if (e->labels.data) {
            ngx_free(e->labels.data);
        }

        ngx_free(e);
    }
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


static void
ngx_mesh_endpoint_remove(ngx_mesh_cluster_t *cluster, ngx_mesh_endpoint_t *e)
{
    lb_pool_remove(&cluster->pools[e->tls], &e->lb);
    ngx_rbtree_delete(&cluster->endpoints, &e->node);
    ngx_mesh_endpoint_release(e);
}


/* FFI */
ngx_int_t
ngx_mesh_ffi_cluster_put(const u_char *name, size_t len, ngx_uint_t method)
{
    ngx_str_t            str = { len, (u_char *) name };
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

        ngx_mesh_copy(&cluster->node.str, (u_char *) cluster + sizeof(ngx_mesh_cluster_t), name, len);
        cluster->refs = 1;

        lb_pool_init(&cluster->pools[0], ngx_random() ^ (uint64_t) ngx_pid << 32);
        lb_pool_init(&cluster->pools[1], ngx_random() ^ (uint64_t) ngx_pid << 32);

        ngx_rbtree_init(&cluster->endpoints, &cluster->sentinel, ngx_mesh_endpoint_insert_value);
        ngx_mesh_names_insert(&ngx_mesh_clusters, &cluster->node);
    }

    cluster->method = method;

    return NGX_OK;
}


/* FFI */
void
ngx_mesh_ffi_cluster_delete(const u_char *name, size_t len)
{
    ngx_str_t            str = { len, (u_char *) name };
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


/* FFI. `labels` are what requests that are still under way count under. */
void
ngx_mesh_ffi_endpoint_delete(const u_char *cluster_name, size_t cluster_len, const u_char *name, size_t len,
    const u_char *labels, size_t labels_len)
{
    ngx_str_t             cluster_str = { cluster_len, (u_char *) cluster_name };
    ngx_str_t             str = { len, (u_char *) name };
    ngx_mesh_cluster_t   *cluster;
    ngx_mesh_endpoint_t  *e;

    cluster = ngx_mesh_cluster_find(&cluster_str);
    e = cluster ? ngx_mesh_endpoint_find(cluster, &str) : NULL;

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

    ngx_mesh_endpoint_remove(cluster, e);
}


/* `name` ("ip:port") as a socket address. NGX_DECLINED: it is none. */
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


/* FFI */
ngx_int_t
ngx_mesh_ffi_address_check(const u_char *name, size_t len)
{
    ngx_str_t                str = { len, (u_char *) name };
    socklen_t                socklen;
    ngx_mesh_sockaddr_t      sockaddr;

    return ngx_mesh_parse_address(&str, &sockaddr, &socklen);
}


/*
 * FFI. An endpoint that only keeps what it was keeps its measurements; one whose identity or mode changed starts anew.
 * NGX_DECLINED: `name` is not an address and port.
 */
ngx_int_t
ngx_mesh_ffi_endpoint_put(const u_char *cluster_name, size_t cluster_len, const u_char *name, size_t len,
    ngx_uint_t tls, const u_char *id, size_t id_len)
{
    u_char               *p;
    ngx_str_t             cluster_str = { cluster_len, (u_char *) cluster_name };
    ngx_str_t             str = { len, (u_char *) name };
    ngx_int_t             rc;
    ngx_mesh_cluster_t   *cluster;
    ngx_mesh_endpoint_t  *e;

    cluster = ngx_mesh_cluster_find(&cluster_str);
    if (cluster == NULL) {
        return NGX_ERROR;
    }

    e = ngx_mesh_endpoint_find(cluster, &str);

    if (e) {
        if (e->tls == !!tls && e->spiffe_id.len == id_len && ngx_memcmp(e->spiffe_id.data, id, id_len) == 0) {
            return NGX_OK;
        }

        ngx_mesh_endpoint_remove(cluster, e);
    }

    e = ngx_mesh_alloc(sizeof(ngx_mesh_endpoint_t), len + id_len);
    if (e == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_mesh_parse_address(&str, &e->sockaddr, &e->socklen);
    if (rc != NGX_OK) {
        ngx_free(e);
        return rc;
    }

    p = ngx_mesh_copy(&e->name, (u_char *) e + sizeof(ngx_mesh_endpoint_t), name, len);
    ngx_mesh_copy(&e->spiffe_id, p, id, id_len);
    SHA256(id, id_len, e->id_digest);

    e->refs = 1;
    e->tls = !!tls;
    e->node.key = ngx_crc32_short(e->name.data, e->name.len);

    if (lb_pool_add(&cluster->pools[e->tls], &e->lb) != 0) {
        ngx_free(e);
        return NGX_ERROR;
    }

    e->cluster = cluster;
    cluster->refs++;

    ngx_rbtree_insert(&cluster->endpoints, &e->node);

    return NGX_OK;
}
