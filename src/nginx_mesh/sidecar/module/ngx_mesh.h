/*
 * What the files of the module share: the tables of this worker, its identity, and what is known of a connection.
 *
 * The tables are process-local and filled from Lua (lua/mesh/engine.lua) through the functions marked FFI; they are only
 * touched from the worker's event loop, so there are no locks. What rate limits count is shared (ngx_mesh_limits.c).
 */

#ifndef NGX_MESH_H
#define NGX_MESH_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "breaker.h"
#include "hello.h"
#include "lb.h"
#include "metric.h"

/* In the preamble of a connection that asks: whom the other one proves, as the caller or (empty) nobody; absent: no TLS. */
#define NGX_MESH_TLV_PEER    "0xE2"

#define NGX_MESH_TRIES_MAX   5          /* endpoints that one request or connection may try */

typedef enum {
    NGX_MESH_OFF = 0,
    NGX_MESH_PERMISSIVE,
    NGX_MESH_STRICT
} ngx_mesh_mode_e;

typedef enum {
    NGX_MESH_NONE = 0,
    NGX_MESH_OUTBOUND,
    NGX_MESH_INBOUND
} ngx_mesh_direction_e;

/* The values of mesh_sort and mesh_role. */
extern ngx_conf_enum_t  ngx_mesh_directions[];

#define NGX_MESH_PROTOCOL_HTTP  0x1     /* HTTP/1 and HTTP/2, gRPC included */
#define NGX_MESH_PROTOCOL_TCP   0x2

typedef struct {
    ngx_uint_t       ready;             /* a state was received: otherwise nothing passes */
    ngx_mesh_mode_e  mode;
    ngx_uint_t       json_log;
    off_t            body_limit;        /* 0: none */
} ngx_mesh_settings_t;

extern ngx_mesh_settings_t  ngx_mesh_settings;


/* clusters, endpoints, ports: ngx_mesh_tables.c */

typedef struct {
    ngx_rbtree_t             tree;
    ngx_rbtree_node_t        sentinel;
    ngx_uint_t               n;
} ngx_mesh_names_t;

ngx_str_node_t *ngx_mesh_names_find(ngx_mesh_names_t *names, const ngx_str_t *name);
/* `node->str` is set; the tree must have been looked up in before. */
void ngx_mesh_names_insert(ngx_mesh_names_t *names, ngx_str_node_t *node);
void ngx_mesh_names_delete(ngx_mesh_names_t *names, ngx_str_node_t *node);
/* An allocation, zeroed, with room for copies of strings behind it. */
void *ngx_mesh_alloc(size_t size, size_t strings);
/* The end of the copy. */
u_char *ngx_mesh_copy(ngx_str_t *to, u_char *room, const u_char *data, size_t len);
ngx_uint_t ngx_mesh_str_equal(const ngx_str_t *a, const ngx_str_t *b);

#define NGX_MESH_DIGEST_LEN  32

typedef union {
    struct sockaddr          sockaddr;
    struct sockaddr_in       sockaddr_in;
    struct sockaddr_in6      sockaddr_in6;
} ngx_mesh_sockaddr_t;

/*
 * nginx keeps idle connections by the bytes of their address. Behind the address (the kernel reads no further) stand
 * what was proved of the endpoint and by which bundle: a kept connection serves no request that expects anything else.
 */
typedef union {
    ngx_mesh_sockaddr_t      address;
    u_char                   bytes[sizeof(ngx_mesh_sockaddr_t) + NGX_MESH_DIGEST_LEN + sizeof(uint64_t)];
} ngx_mesh_proved_sockaddr_t;

typedef struct ngx_mesh_cluster_s  ngx_mesh_cluster_t;
typedef struct ngx_mesh_counts_s  ngx_mesh_counts_t;
typedef struct ngx_mesh_policy_s  ngx_mesh_policy_t;
typedef struct ngx_http_request_s  ngx_http_request_t;

typedef struct {
    lb_endpoint          lb;            /* first: the balancer hands these back */
    ngx_rbtree_node_t    node;
    ngx_uint_t           refs;
    ngx_mesh_cluster_t  *cluster;       /* a reference */
    ngx_mesh_counts_t   *counts;        /* NULL: nothing yet */
    ngx_uint_t           tls;           /* also the index of its pool */
    ngx_mesh_sockaddr_t  sockaddr;
    socklen_t            socklen;
    u_char               id_digest[NGX_MESH_DIGEST_LEN];    /* SHA-256 of spiffe_id */
    ngx_str_t            name;          /* "ip:port" */
    ngx_str_t            spiffe_id;
    ngx_str_t            labels;        /* of its metrics, from when it left its cluster; an allocation of its own */
} ngx_mesh_endpoint_t;

struct ngx_mesh_cluster_s {
    ngx_str_node_t       node;
    ngx_uint_t           refs;
    lb_method            method;
    lb_pool              pools[2];      /* plaintext, mTLS */
    ngx_rbtree_t         endpoints;
    ngx_rbtree_node_t    sentinel;
};

/* What an address and port that the application dials mean. */
typedef struct {
    ngx_str_node_t       node;
    ngx_uint_t           protocols;
    ngx_str_t            cluster;
    ngx_str_t            service;       /* whose split and breaker apply */
} ngx_mesh_destination_t;

ngx_mesh_destination_t *ngx_mesh_destination_find(const ngx_str_t *address);
ngx_mesh_cluster_t *ngx_mesh_cluster_find(const ngx_str_t *name);
ngx_mesh_endpoint_t *ngx_mesh_endpoint_find(ngx_mesh_cluster_t *cluster, const ngx_str_t *name);
void ngx_mesh_cluster_release(ngx_mesh_cluster_t *cluster);
void ngx_mesh_endpoint_release(ngx_mesh_endpoint_t *e);
/* The returned bits say what the pod speaks on a container port; 0: not declared. */
ngx_uint_t ngx_mesh_inbound_find(in_port_t port);
/* NULL: everybody may do everything. */
ngx_mesh_policy_t *ngx_mesh_inbound_policy(in_port_t port);


/* who may do what at a port, and how often: ngx_mesh_policy.c */

/*
 * `id` is empty when the caller proved none. Without a request (TCP), only grants without conditions on requests count.
 * `by` is the name of the first grant that allows it, as long as the policy lives; empty when none does or none is needed.
 */
ngx_uint_t ngx_mesh_policy_allows(ngx_mesh_policy_t *policy, const ngx_str_t *id, ngx_http_request_t *r, ngx_str_t *by);
/*
 * Takes the request into its rate limits. Milliseconds that it has to wait; NGX_BUSY: it is over a limit. `by` is the name
 * of the RateLimit that says so, as long as the policy lives.
 */
ngx_int_t ngx_mesh_policy_wait(ngx_mesh_policy_t *policy, const ngx_str_t *id, ngx_http_request_t *r, ngx_str_t *by);
/* A limit that a request would be taken into, as far as that lives; thousandths of requests, milliseconds. */
typedef struct {
    ngx_str_t            name;          /* under which it counts */
    ngx_str_t            policy;
    uint64_t             rate;          /* requests in 1000 s */
    uint64_t             burst;
    uint64_t             delay;
    uint64_t             excess;        /* with the request, unless it is refused */
    uint64_t             wait;
    ngx_uint_t           admits;
} ngx_mesh_dry_limit_t;

/* The limits that concern the request, in the order in which they are asked, and how many: nothing is counted. */
ngx_uint_t ngx_mesh_policy_look(ngx_mesh_policy_t *policy, const ngx_str_t *id, ngx_http_request_t *r,
    ngx_mesh_dry_limit_t *found, ngx_uint_t max);
void ngx_mesh_policy_free(ngx_mesh_policy_t *policy);
/* While nginx.conf is read: the memory in which all workers count. */
ngx_int_t ngx_mesh_limits_configure(ngx_conf_t *cf);


/* splits and circuit breakers: ngx_mesh_route.c */

typedef struct ngx_mesh_split_s  ngx_mesh_split_t;
typedef struct ngx_mesh_guards_s  ngx_mesh_guards_t;

/* What a dry run passes: breakers are looked at and not asked, and `branch` is what is chosen of a split. */
typedef struct {
    ngx_str_t            service;
    ngx_uint_t           state;         /* breaker_state */
    int64_t              wait;          /* milliseconds until it lets pass */
} ngx_mesh_dry_breaker_t;

typedef struct {
    ngx_uint_t              branch;     /* set by the caller; one that is not there: the root */
    ngx_uint_t              branches;   /* of the split that the request goes through; 0: of none */
    uint32_t                weight;     /* of `branch` */
    uint32_t                usable;
    ngx_uint_t              nbreakers;
    ngx_mesh_dry_breaker_t  breakers[2];
    ngx_str_t               name;       /* of the service or cluster that decided */
    ngx_str_t               cluster;    /* to call */
} ngx_mesh_dry_t;

typedef struct {
    ngx_mesh_cluster_t  *cluster;       /* to call */
    ngx_mesh_guards_t   *guards;        /* NULL: no breaker asks how it ends */
    const ngx_str_t     *name;          /* of the service or cluster that decided */
    ngx_mesh_dry_t      *dry;           /* NULL: it is a request */
} ngx_mesh_route_t;

/*
 * `r` is NULL for TCP. NGX_DECLINED: the destination's cluster is not loaded; NGX_BUSY: the cluster `name` has no
 * endpoint; NGX_ABORT: the circuit of `name` is open, and there is no fallback to call.
 */
ngx_int_t ngx_mesh_route(ngx_mesh_route_t *route, const ngx_mesh_destination_t *d, ngx_http_request_t *r,
    ngx_pool_t *pool);
/* The same of a request that is only asked about: nothing learns of it. */
ngx_int_t ngx_mesh_route_dry(ngx_mesh_dry_t *dry, const ngx_mesh_destination_t *d, ngx_http_request_t *r);
/* The answer has begun, and well. */
void ngx_mesh_guards_begun(ngx_mesh_guards_t *guards);
/* Once; without it, the pool's end says that the outcome is unknown. */
void ngx_mesh_guards_end(ngx_mesh_guards_t *guards, breaker_outcome outcome);


/* requests: ngx_http_mesh_module.c */

/* The policy for the request and the caller's ID, as far as it proved one. */
ngx_mesh_policy_t *ngx_http_mesh_policy(ngx_http_request_t *r, ngx_str_t *id);


/* metrics: ngx_mesh_counts.c */

/* Numbers of this worker that are of no endpoint. lua/mesh/engine.lua has their names, in this order. */
typedef enum {
    NGX_MESH_DENIED = 0,                /* TCP connections, by access rules; Lua counts requests */
    NGX_MESH_SERVER_HANDSHAKES,
    NGX_MESH_SERVER_HANDSHAKES_FAILED,
    NGX_MESH_CLIENT_HANDSHAKES,
    NGX_MESH_CLIENT_HANDSHAKES_FAILED,
    NGX_MESH_RESPONSES,                 /* five: requests from the wire by the class of the answer */
    NGX_MESH_CONNECTIONS = NGX_MESH_RESPONSES + 5,      /* six: TCP from the wire by the status of the session */
    NGX_MESH_TOTALS = NGX_MESH_CONNECTIONS + 6
} ngx_mesh_total_e;

/* Of each endpoint, likewise. */
typedef enum {
    NGX_MESH_HTTP_SENT = 0,             /* bytes, whatever became of the request */
    NGX_MESH_HTTP_RECEIVED,
    NGX_MESH_HTTP_FAILS,                /* tries */
    NGX_MESH_TCP_CONNECTIONS,           /* tries */
    NGX_MESH_TCP_SENT,
    NGX_MESH_TCP_RECEIVED,
    NGX_MESH_TCP_FAILS,
    NGX_MESH_NUMBERS
} ngx_mesh_number_e;

/* Of its TCP connections, from the beginning of a try, likewise. */
typedef enum {
    NGX_MESH_CONNECT_TIME = 0,          /* until bytes can be sent */
    NGX_MESH_FIRST_BYTE_TIME,
    NGX_MESH_RESPONSE_TIME,             /* until the endpoint or the caller ended it */
    NGX_MESH_TIMES
} ngx_mesh_time_e;

void ngx_mesh_count_total(ngx_mesh_total_e total);
/* A request received from the wire, with the status of the answer and the time to its end. */
void ngx_mesh_count_received(ngx_uint_t status, uint64_t ms);
/* A TCP connection received from the wire has ended, with a status of nginx's. */
void ngx_mesh_count_accepted(ngx_uint_t status);
/* A request that went to an endpoint, with the status that the application got and the time it waited. */
void ngx_mesh_count_response(ngx_mesh_endpoint_t *e, ngx_uint_t status, uint64_t ms);
void ngx_mesh_count_number(ngx_mesh_endpoint_t *e, ngx_mesh_number_e number, uint64_t n);
void ngx_mesh_count_time(ngx_mesh_endpoint_t *e, ngx_mesh_time_e time, uint64_t ms);
void ngx_mesh_counts_free(ngx_mesh_endpoint_t *e);


/* One request's or connection's way through the endpoints of a cluster: ngx_mesh_balancer.c */

typedef struct {
    ngx_mesh_cluster_t   *cluster;
    ngx_mesh_endpoint_t  *current;
    ngx_mesh_endpoint_t  *last;         /* the last one chosen; a reference */
    lb_endpoint          *tried[NGX_MESH_TRIES_MAX];    /* each holds a reference */
    ngx_uint_t            ntried;
    ngx_uint_t            tls;
    ngx_uint_t            got_first_byte;
    ngx_uint_t            refused;      /* the endpoint's sidecar answered, its application did not */
    int64_t               started;
    ngx_mesh_proved_sockaddr_t  sockaddr;       /* of the current endpoint */
    ngx_str_t             last_id;      /* of the last one chosen, for the log; in the pool */
} ngx_mesh_attempts_t;

/* Which pool a request goes to, mTLS or plaintext: by their numbers of endpoints. NGX_DECLINED: no endpoint. */
ngx_int_t ngx_mesh_attempts_init(ngx_mesh_attempts_t *a, ngx_mesh_cluster_t *cluster, ngx_pool_t *pool);
ngx_int_t ngx_mesh_attempts_get(ngx_mesh_attempts_t *a, ngx_peer_connection_t *pc, ngx_pool_t *pool);
/* Whether the endpoint has failed. */
ngx_uint_t ngx_mesh_attempts_free(ngx_mesh_attempts_t *a, ngx_peer_connection_t *pc, ngx_uint_t state,
    ngx_uint_t answered);
void ngx_mesh_attempts_first_byte(ngx_mesh_attempts_t *a);
/* peer.set_session of a balanced upstream: the handshake that follows proves us and checks the endpoint. */
ngx_int_t ngx_mesh_attempts_secure(ngx_mesh_attempts_t *a, ngx_peer_connection_t *pc, ngx_uint_t tcp);
ngx_uint_t ngx_mesh_attempts_tries(ngx_mesh_attempts_t *a);
/* peer.save_session: sessions are not kept, so that every connection checks the endpoint anew. */
void ngx_mesh_save_no_session(ngx_peer_connection_t *pc, void *data);
int64_t ngx_mesh_now_us(void);


/* TCP from the wire: ngx_stream_mesh_module.c */

/*
 * Why the application gets nothing of a TCP connection, or what would be one; NULL: the caller may call. `by` is as with
 * ngx_mesh_policy_allows.
 */
const char *ngx_mesh_tcp_judge(ngx_connection_t *c, ngx_uint_t tls, ngx_str_t *by);
/* Who may do what has changed: connections that are open are judged anew, soon, and closed if they have no right. */
void ngx_mesh_rights_changed(void);


/* identity: ngx_mesh_identity.c */

/*
 * The server side of mTLS for all connections of a context: the pod's SVID, clients judged by the trust bundles. `count`:
 * their handshakes count, as failed also when the client proves nothing.
 */
ngx_int_t ngx_mesh_identity_serve(SSL_CTX *ctx, ngx_uint_t count);
/* The client side for one connection: only `expected` (a SPIFFE ID that outlives the handshake) is accepted. */
ngx_int_t ngx_mesh_identity_call(ngx_connection_t *c, const ngx_str_t *expected, ngx_uint_t tcp);
/* Counts the sets of trust bundles that this worker has had: what an earlier one vouched for is to be proved anew. */
uint64_t ngx_mesh_identity_generation(void);
/* The SPIFFE ID that the peer proved in its handshake; NGX_DECLINED when it proved none. */
ngx_int_t ngx_mesh_identity_peer(ngx_connection_t *c, ngx_str_t *id);
/* Whether an ID is of our trust domain or one that it federates with, now. */
ngx_uint_t ngx_mesh_identity_believes(const ngx_str_t *id);


/* TLS connections: ngx_mesh_tls.c */

/* The handshakes of a context's connections count; `proved` tells whether the other side proved who it is. */
ngx_int_t ngx_mesh_tls_count_served(SSL_CTX *ctx, ngx_uint_t (*proved)(const SSL *ssl));
/* The handshake that is about to begin counts. */
ngx_int_t ngx_mesh_tls_count_call(SSL *ssl);

/* A TLS connection whose socket is known to be empty is not read from the socket. */
void ngx_mesh_tls_read_once(ngx_connection_t *c);


/* connections: ngx_mesh_connection.c */

typedef struct {
    struct sockaddr_storage  original;  /* where the connection was going before it was redirected */
    socklen_t                socklen;
    ngx_str_t                name;      /* "ip:port"; empty when there is none */
    in_port_t                port;
    ngx_str_t                peer_id;
    ngx_uint_t               peer_known;
    ngx_uint_t               tls;       /* of a connection that only asks: whether the one in question has it */
    ngx_mesh_cluster_t      *cluster;   /* where TCP to a service goes, from when the connection was sorted */
    ngx_mesh_guards_t       *guards;
} ngx_mesh_connection_t;

/* Kept with the connection, also when it is passed from a stream listener to an HTTP one. NULL: out of memory. */
ngx_mesh_connection_t *ngx_mesh_connection(ngx_connection_t *c);
/* Whether what came on the connection came by TLS; of one that only asks (explain.sock), what is in question. */
ngx_uint_t ngx_mesh_connection_is_tls(ngx_connection_t *c);
/* ngx_mesh_identity_peer, asked once a connection; what it proved counts while its trust domain is believed. */
ngx_int_t ngx_mesh_connection_peer(ngx_connection_t *c, ngx_str_t *id);
/* Whether the original destination is an address of this pod's loopback: then the connection was not redirected. */
ngx_uint_t ngx_mesh_connection_is_local(ngx_mesh_connection_t *mc);
/*
 * Points a peer connection at `port` of the connection's original address (the application), from a source address by
 * which netfilter tells it from a call of the pod to itself.
 */
ngx_int_t ngx_mesh_connection_forward(ngx_connection_t *c, ngx_peer_connection_t *pc, in_port_t port);

extern ngx_module_t  ngx_http_mesh_module;
extern ngx_module_t  ngx_stream_mesh_module;

#endif
