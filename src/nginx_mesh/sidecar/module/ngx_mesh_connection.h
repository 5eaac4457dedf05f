/* What is known of a connection: where it was going, and who is at its other end. */

#ifndef NGX_MESH_CONNECTION_H
#define NGX_MESH_CONNECTION_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mesh_breakers.h"
#include "ngx_mesh_clusters.h"

typedef struct {
    struct sockaddr_storage  original;  /* where the connection was going before it was redirected */
    socklen_t                socklen;
    ngx_str_t                name;      /* "ip:port"; empty when it was not redirected */
    in_port_t                port;
    ngx_str_t                peer_id;
    ngx_uint_t               peer_known;
    ngx_uint_t               tls;       /* whether the one that a connection to explain.sock asks about has it */
    ngx_mesh_cluster_t      *cluster;   /* where TCP to a service goes, once the connection was sorted */
    ngx_mesh_tickets_t      *tickets;
} ngx_mesh_connection_t;

/*
 * The facts are kept with the connection, and stay with it when a stream listener passes it to an HTTP one. NULL: out
 * of memory.
 */
ngx_mesh_connection_t *ngx_mesh_connection(ngx_connection_t *c);
/* Whether the connection came by TLS, or, of a connection to explain.sock, the one that is asked about. */
ngx_uint_t ngx_mesh_connection_is_tls(ngx_connection_t *c);
/* The SPIFFE ID that the caller proved. It counts only while there is a trust bundle for its trust domain. */
ngx_int_t ngx_mesh_connection_peer(ngx_connection_t *c, ngx_str_t *id);
/* Whether the original destination is an address of this pod's loopback: then the connection was not redirected. */
ngx_uint_t ngx_mesh_connection_is_local(ngx_mesh_connection_t *mc);
/*
 * Points a peer connection at the application: at `port` (0: the one that was dialled) of the connection's original
 * address. The source address tells netfilter that this is no call of the pod to itself. NGX_BUSY: the connection was
 * not redirected.
 */
ngx_int_t ngx_mesh_connection_forward(ngx_connection_t *c, ngx_peer_connection_t *pc, in_port_t port);

#endif
