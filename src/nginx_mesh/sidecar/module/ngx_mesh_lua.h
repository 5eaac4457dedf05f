/*
 * Everything of the module that Lua calls or reads through LuaJIT's FFI: the functions, the layouts of the structures
 * and the numbers that both sides know. Lua repeats these declarations in `ffi.cdef` blocks, because LuaJIT reads no
 * headers. tests/unit/sidecar/test_lua_declarations.py compiles these blocks against this file.
 *
 * Only plain C types stand here, so that a test can read the file without nginx: intptr_t is ngx_int_t, uintptr_t is
 * ngx_uint_t. Each function is defined in the file that the comment above its group names. Functions with "http" in
 * their name are called while Lua handles the request that they get.
 */

#ifndef NGX_MESH_LUA_H
#define NGX_MESH_LUA_H

#include <stddef.h>
#include <stdint.h>

#include "metric.h"
#include "ngx_mesh_clock.h"

typedef struct ngx_http_request_s ngx_http_request_t;

typedef struct ngx_mesh_policy_s ngx_mesh_policy_t;
typedef struct ngx_mesh_rule_s ngx_mesh_rule_t;
typedef struct ngx_mesh_limit_s ngx_mesh_limit_t;
typedef struct ngx_mesh_split_s ngx_mesh_split_t;

/* A string that is not terminated. The layout is that of ngx_str_t. */
typedef struct {
    size_t      len;
    const char *data;
} ngx_mesh_ffi_str_t;

/* The return codes that Lua tells apart: nginx's own. */
enum {
    NGX_MESH_RC_OK = 0,
    NGX_MESH_RC_BUSY = -3,
    NGX_MESH_RC_DECLINED = -5,
    NGX_MESH_RC_ABORT = -6
};


/* settings: ngx_mesh_settings.c */

typedef enum {
    NGX_MESH_OFF = 0,
    NGX_MESH_PERMISSIVE,
    NGX_MESH_STRICT
} ngx_mesh_mode_e;

/* The levels of the error log are nginx's. `debug` turns on every debug message that nginx has. */
enum {
    NGX_MESH_LOG_EMERG = 1,
    NGX_MESH_LOG_ALERT,
    NGX_MESH_LOG_CRIT,
    NGX_MESH_LOG_ERROR,
    NGX_MESH_LOG_WARN,
    NGX_MESH_LOG_NOTICE,
    NGX_MESH_LOG_INFO,
    NGX_MESH_LOG_DEBUG = 0x7ffffff0
};

/* `body_limit`: bytes that a request from the wire may have; 0: any number. */
void ngx_mesh_ffi_settings(uintptr_t mode, uintptr_t json_log, uintptr_t log_level, int64_t body_limit);


/* what is behind an address: ngx_mesh_destinations.c, ngx_mesh_clusters.c */

/* These are bits: a port may speak both. */
enum {
    NGX_MESH_PROTOCOL_HTTP = 1,         /* HTTP/1 and HTTP/2, which includes gRPC */
    NGX_MESH_PROTOCOL_TCP = 2
};

/* NGX_OK: `address` is an IP address and a port, as endpoints have it; NGX_DECLINED: it is not. */
intptr_t ngx_mesh_ffi_address_check(const char *address, size_t len);
intptr_t ngx_mesh_ffi_destination_put(const char *address, size_t address_len, uintptr_t protocols, const char *cluster,
    size_t cluster_len, const char *service, size_t service_len);
void ngx_mesh_ffi_destination_delete(const char *address, size_t len);
/* `method` is a lb_method. */
intptr_t ngx_mesh_ffi_cluster_put(const char *name, size_t len, uintptr_t method);
void ngx_mesh_ffi_cluster_delete(const char *name, size_t len);
/*
 * An endpoint that stays as it was keeps its measurements. One whose SPIFFE ID or use of TLS changed starts anew.
 * NGX_DECLINED: `name` is not an address and a port.
 */
intptr_t ngx_mesh_ffi_endpoint_put(const char *cluster, size_t cluster_len, const char *name, size_t len, uintptr_t tls,
    const char *id, size_t id_len);
/* Requests that are still under way are counted under `labels`. */
void ngx_mesh_ffi_endpoint_delete(const char *cluster, size_t cluster_len, const char *name, size_t len,
    const char *labels, size_t labels_len);


/* access rules and rate limits: ngx_mesh_inbound.c, ngx_mesh_policy.c, ngx_mesh_limits.c, ngx_mesh_rules.c */

/* The policy, which may be NULL, then belongs to the port. */
void ngx_mesh_ffi_inbound(uintptr_t port, uintptr_t protocols, ngx_mesh_policy_t *policy);
/* `restricted`: what no grant allows is denied. NULL: out of memory. */
ngx_mesh_policy_t *ngx_mesh_ffi_policy_new(uintptr_t restricted);
/*
 * Adds the grant of the TrafficTarget `name` and returns its rule, which must be filled in before the next grant is
 * added. `tcp`: the grant allows connections only and no requests. NULL: out of memory.
 */
ngx_mesh_rule_t *ngx_mesh_ffi_policy_grant(ngx_mesh_policy_t *policy, const char *name, size_t len, uintptr_t tcp);
/* Adds a caller, by its SPIFFE ID, to the grant that was added last. */
intptr_t ngx_mesh_ffi_policy_grant_source(ngx_mesh_policy_t *policy, const char *id, size_t len);
/*
 * Adds a limit, which counts under `name`; the first `policy_len` bytes of that are the name of the RateLimit. `rate`:
 * requests in 1000 s. `burst` and `delay`: requests; with a negative `delay` no request waits. The limit applies to
 * nobody before it has a source or is for others. NULL: out of memory.
 */
ngx_mesh_limit_t *ngx_mesh_ffi_policy_limit(ngx_mesh_policy_t *policy, const char *name, size_t len, size_t policy_len,
    double rate, double burst, double delay);
/* Adds a caller, by its SPIFFE ID, to the limit. */
intptr_t ngx_mesh_ffi_policy_limit_source(ngx_mesh_policy_t *policy, ngx_mesh_limit_t *limit, const char *id,
    size_t len);
/* The limit is for callers that no limit names. */
intptr_t ngx_mesh_ffi_policy_limit_others(ngx_mesh_policy_t *policy, ngx_mesh_limit_t *limit);
/* The rule that says which requests the limit counts. */
ngx_mesh_rule_t *ngx_mesh_ffi_limit_rule(ngx_mesh_limit_t *limit);
/* Adds an address of one of the limit's sources. NGX_DECLINED: `address` is no IP address. */
intptr_t ngx_mesh_ffi_limit_address(ngx_mesh_limit_t *limit, const char *address, size_t len);
/* Begins a match of the rule. `path` is a regular expression; an empty one matches every path. */
intptr_t ngx_mesh_ffi_rule_match(ngx_mesh_rule_t *rule, const char *path, size_t len);
/* Adds to the match that was begun last: a method that it is for, "*" for all. */
intptr_t ngx_mesh_ffi_rule_method(ngx_mesh_rule_t *rule, const char *name, size_t len);
/* Adds to the match that was begun last: a header that must be there, and a regular expression for its value. */
intptr_t ngx_mesh_ffi_rule_header(ngx_mesh_rule_t *rule, const char *name, size_t name_len, const char *regex,
    size_t regex_len);


/* splits and circuit breakers: ngx_mesh_splits.c, ngx_mesh_breakers.c */

/* A split is made, filled with its backends and its rule, and put in force. NULL: out of memory. */
ngx_mesh_split_t *ngx_mesh_ffi_split_new(const char *service, size_t len);
intptr_t ngx_mesh_ffi_split_backend(ngx_mesh_split_t *split, const char *cluster, size_t len, uint32_t weight);
ngx_mesh_rule_t *ngx_mesh_ffi_split_rule(ngx_mesh_split_t *split);
void ngx_mesh_ffi_split_put(ngx_mesh_split_t *split);
void ngx_mesh_ffi_split_delete(const char *service, size_t len);
/*
 * `errors` failures within `timeout` milliseconds open the circuit. `fallback` is a cluster, or empty. A breaker whose
 * `errors` and `timeout` stay as they were keeps its state.
 */
intptr_t ngx_mesh_ffi_breaker_put(const char *service, size_t len, uint32_t errors, int64_t timeout,
    const char *fallback, size_t fallback_len);
void ngx_mesh_ffi_breaker_delete(const char *service, size_t len);
/* A breaker_state, or NGX_ERROR when the service has no breaker. */
intptr_t ngx_mesh_ffi_breaker_state(const char *service, size_t len);
/* How often the service's breaker opened since the last call. */
uintptr_t ngx_mesh_ffi_breaker_trips_take(const char *service, size_t len);


/* identity: ngx_mesh_identity.c */

/*
 * NULL when the new identity is in force; otherwise the error, and the old identity stays in force. All are in PEM.
 * `federated` are `nfederated` pairs of a trust domain and its bundle. Their order must always be the same, because
 * another order counts as a change.
 */
const char *ngx_mesh_ffi_identity(const ngx_mesh_ffi_str_t *svid, const ngx_mesh_ffi_str_t *key,
    const ngx_mesh_ffi_str_t *bundle, const ngx_mesh_ffi_str_t *federated, size_t nfederated);
/* From now on the pod has no identity, and no trust bundle. */
void ngx_mesh_ffi_identity_clear(void);
/* When the SVID in force expires, in seconds since the epoch; 0 when there is none. */
int64_t ngx_mesh_ffi_identity_expires(void);


/* one request: ngx_http_mesh_lua.c, ngx_http_mesh_access.c */

/* The length of the address that the caller dialled ("ip:port"); 0: the connection was not redirected. */
size_t ngx_http_mesh_ffi_original(ngx_http_request_t *r, const char **data, uintptr_t *port);
/* 1: the caller proved the SPIFFE ID; 0: it uses TLS and proved none; -1: it uses plaintext. */
int ngx_http_mesh_ffi_peer(ngx_http_request_t *r, const char **data, size_t *len);
/*
 * Many applications take "_" and other signs in a header's name for "-", so that a caller could claim another's
 * identity by another spelling of the header. All spellings become the name that is replaced by what the caller proved.
 */
void ngx_http_mesh_ffi_disown_identity(ngx_http_request_t *r);
/*
 * Chooses the cluster that the request goes to. NGX_DECLINED: the address is no destination, or its cluster is not
 * loaded; NGX_BUSY: the cluster `name` has no endpoint; NGX_ABORT: the circuit of the service `name` is open and its
 * fallback cannot be called. `name` is valid until the tables change.
 */
intptr_t ngx_http_mesh_ffi_select(ngx_http_request_t *r, const char **name, size_t *len);
/* The upstream with mesh_forward connects to this port of the pod instead of the one that was dialled. */
intptr_t ngx_http_mesh_ffi_forward(ngx_http_request_t *r, uintptr_t port);
/* A body of more than `limit` bytes ends in 413. NGX_DECLINED: the announced length is over the limit already. */
intptr_t ngx_http_mesh_ffi_body_limit(ngx_http_request_t *r, int64_t limit);
/* Whether the port's access rules allow the request; then the request remembers the name of the grant. */
uintptr_t ngx_http_mesh_ffi_allowed(ngx_http_request_t *r);
/* The length of the name of the grant that allowed the request; 0: none was needed, or none did. */
size_t ngx_http_mesh_ffi_granted(ngx_http_request_t *r, const char **data);
/*
 * The milliseconds that rate limits make the request wait; negative: it is over a limit. When it is not 0, `name` is
 * the RateLimit's. A request is counted once, however often this is asked.
 */
intptr_t ngx_http_mesh_ffi_limit(ngx_http_request_t *r, const char **name, size_t *len);
/* Tells why the request is refused, for the log and for the report about it. */
void ngx_http_mesh_ffi_refused(ngx_http_request_t *r, const char *reason, size_t len);


/* dry runs: ngx_http_mesh_explain.c */

/* A breaker that a request would pass. */
typedef struct {
    ngx_mesh_ffi_str_t      service;
    uintptr_t               state;      /* breaker_state */
    int64_t                 wait;       /* milliseconds until it lets a request pass */
} ngx_mesh_dry_breaker_t;

/* What a request would pass on its way. Breakers are looked at and not told of it. */
typedef struct {
    uintptr_t               branch;     /* set by the caller; a number that no branch has stands for the root */
    uintptr_t               branches;   /* of the split that the request goes through; 0: it goes through none */
    uint32_t                weight;     /* of `branch` */
    uint32_t                usable;
    uintptr_t               nbreakers;
    ngx_mesh_dry_breaker_t  breakers[2];
    ngx_mesh_ffi_str_t      name;       /* of the service or cluster that decided */
    ngx_mesh_ffi_str_t      cluster;    /* to call */
} ngx_mesh_dry_t;

/* A limit that would count a request. `burst`, `delay` and `excess` are thousandths of a request. */
typedef struct {
    ngx_mesh_ffi_str_t      name;       /* under which it counts */
    ngx_mesh_ffi_str_t      policy;
    uint64_t                rate;       /* requests in 1000 s */
    uint64_t                burst;
    uint64_t                delay;
    uint64_t                excess;     /* with the request, unless it is refused */
    uint64_t                wait;       /* milliseconds */
    uintptr_t               admits;
} ngx_mesh_dry_limit_t;

/*
 * Gives the request an answer with a body, whatever its method and its conditional headers say; rules look at the
 * method's name. NGX_DECLINED: its connection does not say what is asked about.
 */
intptr_t ngx_http_mesh_ffi_explain(ngx_http_request_t *r);
/*
 * As ngx_http_mesh_ffi_select, for the branch `dry->branch` of a split. `tcp`: for a connection instead of a request.
 */
intptr_t ngx_http_mesh_ffi_explain_route(ngx_http_request_t *r, uintptr_t tcp, ngx_mesh_dry_t *dry);
/* Why a TCP connection would be closed; NULL: it would not, and `by` is the grant that allows it or empty. */
const char *ngx_http_mesh_ffi_explain_tcp(ngx_http_request_t *r, ngx_mesh_ffi_str_t *by);
/*
 * How many limits would count the request; `found` gets the first `max` of them, in the order in which they are asked.
 */
uintptr_t ngx_http_mesh_ffi_explain_limits(ngx_http_request_t *r, ngx_mesh_dry_limit_t *found, uintptr_t max);
/* The milliseconds for which an endpoint gets no requests because it failed. */
int64_t ngx_mesh_ffi_endpoint_down(const char *cluster, size_t cluster_len, const char *name, size_t len);


/* counters: ngx_mesh_totals.c, ngx_mesh_counts.c */

/* What a worker counts that belongs to no endpoint. */
typedef enum {
    NGX_MESH_TOTAL_DENIED = 0,          /* TCP connections that access rules denied; Lua counts the requests */
    NGX_MESH_TOTAL_SERVER_OK,           /* handshakes with callers */
    NGX_MESH_TOTAL_SERVER_FAILED,
    NGX_MESH_TOTAL_CLIENT_OK,           /* handshakes with endpoints */
    NGX_MESH_TOTAL_CLIENT_FAILED,
    NGX_MESH_TOTAL_1XX,                 /* requests from the wire, by the class of the answer */
    NGX_MESH_TOTAL_2XX,
    NGX_MESH_TOTAL_3XX,
    NGX_MESH_TOTAL_4XX,
    NGX_MESH_TOTAL_5XX,
    NGX_MESH_TOTAL_SESSION_200,         /* TCP connections from the wire, by the status of the session */
    NGX_MESH_TOTAL_SESSION_400,
    NGX_MESH_TOTAL_SESSION_403,
    NGX_MESH_TOTAL_SESSION_500,
    NGX_MESH_TOTAL_SESSION_502,
    NGX_MESH_TOTAL_SESSION_503,
    NGX_MESH_TOTALS
} ngx_mesh_total_e;

/* What is counted of each endpoint. */
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

/* What is measured of each endpoint's TCP connections, from the beginning of a try on. */
typedef enum {
    NGX_MESH_CONNECT_TIME = 0,          /* until bytes can be sent */
    NGX_MESH_FIRST_BYTE_TIME,
    NGX_MESH_RESPONSE_TIME,             /* until the endpoint or the caller ended it */
    NGX_MESH_TIMES
} ngx_mesh_time_e;

typedef struct {
    uint64_t                numbers[NGX_MESH_TOTALS];
    metric_histogram        latency;    /* of requests from the wire */
} ngx_mesh_ffi_totals_t;

typedef struct {
    ngx_mesh_ffi_str_t      cluster;
    ngx_mesh_ffi_str_t      endpoint;
    ngx_mesh_ffi_str_t      labels;     /* empty: the state has them */
    uintptr_t               tls;
    uintptr_t               tcp;        /* 0: the numbers and times of TCP are all 0 */
    uint64_t                numbers[NGX_MESH_NUMBERS];
    metric_histogram        times[NGX_MESH_TIMES];
} ngx_mesh_ffi_counts_t;

typedef struct {
    uintptr_t               status;
    metric_histogram        latency;
} ngx_mesh_ffi_status_t;

/* The totals since the last call. */
void ngx_mesh_ffi_totals_take(ngx_mesh_ffi_totals_t *totals);
/* What was counted of one endpoint since it was last taken, valid until the next call; NULL: there is no more. */
ngx_mesh_ffi_counts_t *ngx_mesh_ffi_counts_take(void);
/* The requests to that endpoint with one status, valid until the next call; NULL: there is no more. */
ngx_mesh_ffi_status_t *ngx_mesh_ffi_status_take(void);


/* traces and tap: ngx_mesh_report.c */

/* `ratio` is the part of new traces that is sampled; when it is negative, requests are in no traces. */
void ngx_mesh_ffi_tracing(double ratio);
/*
 * Reports requests to the node for `ms` milliseconds (0: it ends now), at most `rate` a second, with a status from
 * `lowest` to `highest`. An empty `method` is any; `path` is what a path begins with; `peers` is "\nIP\nIP\n", of which
 * one must be the other side, or empty. NGX_ERROR: out of memory, and nothing is reported.
 */
intptr_t ngx_mesh_ffi_tap(int64_t ms, uint32_t rate, uintptr_t lowest, uintptr_t highest, const char *method,
    size_t method_len, const char *path, size_t path_len, const char *peers, size_t peers_len);
/* How many reports were dropped since the last call. */
uintptr_t ngx_mesh_ffi_reports_dropped_take(void);

#endif
