/* Clusters and their endpoints. Both are counted references, so that requests outlive a change of the state. */

#ifndef NGX_MESH_CLUSTERS_H
#define NGX_MESH_CLUSTERS_H

#include <ngx_config.h>
#include <ngx_core.h>

#include "lb.h"

#define NGX_MESH_DIGEST_LEN  32

typedef struct ngx_mesh_cluster_s  ngx_mesh_cluster_t;

typedef union {
    struct sockaddr          sockaddr;
    struct sockaddr_in       sockaddr_in;
    struct sockaddr_in6      sockaddr_in6;
} ngx_mesh_sockaddr_t;

typedef struct {
    lb_endpoint          lb;            /* first, because the balancer hands out pointers to it */
    ngx_rbtree_node_t    node;
    ngx_uint_t           refs;
    ngx_mesh_cluster_t  *cluster;       /* a reference */
    void                *counts;        /* kept by ngx_mesh_counts.c; NULL: nothing was counted yet */
    void               (*counts_free)(void *counts);
    ngx_uint_t           tls;           /* also the index of its pool */
    ngx_mesh_sockaddr_t  sockaddr;
    socklen_t            socklen;
    u_char               id_digest[NGX_MESH_DIGEST_LEN];    /* SHA-256 of spiffe_id */
    ngx_str_t            name;          /* "ip:port" */
    ngx_str_t            spiffe_id;     /* what it must prove; empty without TLS */
    ngx_str_t            labels;        /* of its metrics, once it left its cluster; an allocation of its own */
} ngx_mesh_endpoint_t;

struct ngx_mesh_cluster_s {
    ngx_str_node_t       node;
    ngx_uint_t           refs;
    lb_method            method;
    lb_pool              pools[2];      /* endpoints in plaintext, endpoints with mTLS */
    ngx_rbtree_t         endpoints;
    ngx_rbtree_node_t    sentinel;
};

/* NULL: it is not loaded. */
ngx_mesh_cluster_t *ngx_mesh_cluster_find(const ngx_str_t *name);
/* Whether the cluster is loaded and has an endpoint. */
ngx_uint_t ngx_mesh_cluster_usable(const ngx_mesh_cluster_t *cluster);
void ngx_mesh_cluster_release(ngx_mesh_cluster_t *cluster);
void ngx_mesh_endpoint_release(ngx_mesh_endpoint_t *e);

#endif
