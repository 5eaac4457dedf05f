/* The attempts of one request or TCP connection to reach an endpoint of a cluster. */

#ifndef NGX_MESH_BALANCER_H
#define NGX_MESH_BALANCER_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mesh_clusters.h"

#define NGX_MESH_TRIES_MAX   5          /* endpoints that one request or connection may try */

/*
 * nginx keeps idle connections by the bytes of their address. Behind the address, where the kernel does not read, stand
 * what the endpoint proved and which bundles there were, so that a kept connection serves no request that expects
 * anything else.
 */
typedef union {
    ngx_mesh_sockaddr_t      address;
    u_char                   bytes[sizeof(ngx_mesh_sockaddr_t) + NGX_MESH_DIGEST_LEN + sizeof(uint64_t)];
} ngx_mesh_proved_sockaddr_t;

typedef struct {
    ngx_mesh_cluster_t   *cluster;
    ngx_mesh_endpoint_t  *current;      /* NULL between two tries */
    ngx_mesh_endpoint_t  *last;         /* the last one that was chosen; a reference */
    lb_endpoint          *tried[NGX_MESH_TRIES_MAX];    /* each holds a reference */
    ngx_uint_t            ntried;
    ngx_uint_t            tls;
    ngx_uint_t            got_first_byte;
    ngx_uint_t            refused;      /* the endpoint's sidecar answered, its application did not */
    int64_t               started;
    ngx_mesh_proved_sockaddr_t  sockaddr;       /* of the current endpoint */
    ngx_str_t             last_id;      /* of the last one that was chosen, for the log; in the pool */
} ngx_mesh_attempts_t;

/*
 * Chooses, by their numbers of endpoints, whether the request goes to an endpoint with mTLS or in plaintext.
 * NGX_DECLINED: the cluster has no endpoint.
 */
ngx_int_t ngx_mesh_attempts_init(ngx_mesh_attempts_t *a, ngx_mesh_cluster_t *cluster, ngx_pool_t *pool);
/* How many endpoints may be tried. */
ngx_uint_t ngx_mesh_attempts_tries(ngx_mesh_attempts_t *a);
/* Begins a try: chooses an endpoint and points the peer connection at it. NGX_BUSY: there is none left. */
ngx_int_t ngx_mesh_attempts_get(ngx_mesh_attempts_t *a, ngx_peer_connection_t *pc, ngx_pool_t *pool);
void ngx_mesh_attempts_first_byte(ngx_mesh_attempts_t *a);
/* Ends a try. `state` is nginx's; `answered`: an answer has begun. Returns whether the endpoint has failed. */
ngx_uint_t ngx_mesh_attempts_free(ngx_mesh_attempts_t *a, ngx_peer_connection_t *pc, ngx_uint_t state,
    ngx_uint_t answered);
/* For peer.set_session: in the handshake that follows the pod proves its identity, and checks the endpoint's. */
ngx_int_t ngx_mesh_attempts_secure(ngx_mesh_attempts_t *a, ngx_peer_connection_t *pc, ngx_uint_t tcp);
/* For peer.save_session: TLS sessions are not kept, so that every connection checks the endpoint anew. */
void ngx_mesh_save_no_session(ngx_peer_connection_t *pc, void *data);

#endif
