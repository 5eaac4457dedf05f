-- The declarations of everything in the C module, and in nginx, that Lua calls or reads. This file has no logic, so
-- that a test can compare it with the C headers (module/ngx_mesh_lua.h is where most of these are declared).

local ffi = require "ffi"

ffi.cdef [[
typedef struct ngx_http_request_s ngx_http_request_t;

typedef struct ngx_mesh_policy_s ngx_mesh_policy_t;
typedef struct ngx_mesh_rule_s ngx_mesh_rule_t;
typedef struct ngx_mesh_limit_s ngx_mesh_limit_t;

void ngx_mesh_ffi_settings(uintptr_t mode, uintptr_t json_log, uintptr_t log_level, int64_t body_limit);
void ngx_mesh_ffi_inbound(uintptr_t port, uintptr_t protocols, ngx_mesh_policy_t *policy);
ngx_mesh_policy_t *ngx_mesh_ffi_policy_new(uintptr_t restricted);
ngx_mesh_rule_t *ngx_mesh_ffi_policy_grant(ngx_mesh_policy_t *policy, const char *name, size_t len, uintptr_t tcp);
intptr_t ngx_mesh_ffi_policy_grant_source(ngx_mesh_policy_t *policy, const char *id, size_t len);
ngx_mesh_limit_t *ngx_mesh_ffi_policy_limit(ngx_mesh_policy_t *policy, const char *name, size_t len,
    size_t policy_len, double rate, double burst, double delay);
intptr_t ngx_mesh_ffi_policy_limit_source(ngx_mesh_policy_t *policy, ngx_mesh_limit_t *limit, const char *id,
    size_t len);
intptr_t ngx_mesh_ffi_policy_limit_others(ngx_mesh_policy_t *policy, ngx_mesh_limit_t *limit);
ngx_mesh_rule_t *ngx_mesh_ffi_limit_rule(ngx_mesh_limit_t *limit);
intptr_t ngx_mesh_ffi_limit_address(ngx_mesh_limit_t *limit, const char *address, size_t len);
intptr_t ngx_mesh_ffi_rule_match(ngx_mesh_rule_t *rule, const char *path, size_t len);
intptr_t ngx_mesh_ffi_rule_method(ngx_mesh_rule_t *rule, const char *name, size_t len);
intptr_t ngx_mesh_ffi_rule_header(ngx_mesh_rule_t *rule, const char *name, size_t name_len, const char *regex,
    size_t regex_len);
intptr_t ngx_mesh_ffi_address_check(const char *address, size_t len);
intptr_t ngx_mesh_ffi_destination_put(const char *address, size_t address_len, uintptr_t protocols,
    const char *cluster, size_t cluster_len, const char *service, size_t service_len);
void ngx_mesh_ffi_destination_delete(const char *address, size_t len);
intptr_t ngx_mesh_ffi_cluster_put(const char *name, size_t len, uintptr_t method);
void ngx_mesh_ffi_cluster_delete(const char *name, size_t len);
intptr_t ngx_mesh_ffi_endpoint_put(const char *cluster, size_t cluster_len, const char *name, size_t len,
    uintptr_t tls, const char *id, size_t id_len);
void ngx_mesh_ffi_endpoint_delete(const char *cluster, size_t cluster_len, const char *name, size_t len,
    const char *labels, size_t labels_len);

typedef struct ngx_mesh_split_s ngx_mesh_split_t;

ngx_mesh_split_t *ngx_mesh_ffi_split_new(const char *service, size_t len);
intptr_t ngx_mesh_ffi_split_backend(ngx_mesh_split_t *split, const char *cluster, size_t len, uint32_t weight);
ngx_mesh_rule_t *ngx_mesh_ffi_split_rule(ngx_mesh_split_t *split);
void ngx_mesh_ffi_split_put(ngx_mesh_split_t *split);
void ngx_mesh_ffi_split_delete(const char *service, size_t len);
intptr_t ngx_mesh_ffi_breaker_put(const char *service, size_t len, uint32_t errors, int64_t timeout,
    const char *fallback, size_t fallback_len);
void ngx_mesh_ffi_breaker_delete(const char *service, size_t len);
intptr_t ngx_mesh_ffi_breaker_state(const char *service, size_t len);
uintptr_t ngx_mesh_ffi_breaker_trips_take(const char *service, size_t len);

typedef struct {
    size_t      len;
    const char *data;
} ngx_mesh_ffi_str_t;

const char *ngx_mesh_ffi_identity(const ngx_mesh_ffi_str_t *svid, const ngx_mesh_ffi_str_t *key,
    const ngx_mesh_ffi_str_t *bundle, const ngx_mesh_ffi_str_t *federated, size_t nfederated);
void ngx_mesh_ffi_identity_clear(void);
int64_t ngx_mesh_ffi_identity_expires(void);

size_t ngx_http_mesh_ffi_original(ngx_http_request_t *r, const char **data, uintptr_t *port);
int ngx_http_mesh_ffi_peer(ngx_http_request_t *r, const char **data, size_t *len);
void ngx_http_mesh_ffi_disown_identity(ngx_http_request_t *r);
intptr_t ngx_http_mesh_ffi_select(ngx_http_request_t *r, const char **name, size_t *len);
intptr_t ngx_http_mesh_ffi_forward(ngx_http_request_t *r, uintptr_t port);
intptr_t ngx_http_mesh_ffi_body_limit(ngx_http_request_t *r, int64_t limit);
uintptr_t ngx_http_mesh_ffi_allowed(ngx_http_request_t *r);
size_t ngx_http_mesh_ffi_granted(ngx_http_request_t *r, const char **data);
intptr_t ngx_http_mesh_ffi_limit(ngx_http_request_t *r, const char **name, size_t *len);

typedef struct {
    ngx_mesh_ffi_str_t  service;
    uintptr_t           state;
    int64_t             wait;
} ngx_mesh_dry_breaker_t;

typedef struct {
    uintptr_t               branch;
    uintptr_t               branches;
    uint32_t                weight;
    uint32_t                usable;
    uintptr_t               nbreakers;
    ngx_mesh_dry_breaker_t  breakers[2];
    ngx_mesh_ffi_str_t      name;
    ngx_mesh_ffi_str_t      cluster;
} ngx_mesh_dry_t;

typedef struct {
    ngx_mesh_ffi_str_t  name;
    ngx_mesh_ffi_str_t  policy;
    uint64_t            rate;
    uint64_t            burst;
    uint64_t            delay;
    uint64_t            excess;
    uint64_t            wait;
    uintptr_t           admits;
} ngx_mesh_dry_limit_t;

intptr_t ngx_http_mesh_ffi_explain(ngx_http_request_t *r);
intptr_t ngx_http_mesh_ffi_explain_route(ngx_http_request_t *r, uintptr_t tcp, ngx_mesh_dry_t *dry);
const char *ngx_http_mesh_ffi_explain_tcp(ngx_http_request_t *r, ngx_mesh_ffi_str_t *by);
uintptr_t ngx_http_mesh_ffi_explain_limits(ngx_http_request_t *r, ngx_mesh_dry_limit_t *found, uintptr_t max);
int64_t ngx_mesh_ffi_endpoint_down(const char *cluster, size_t cluster_len, const char *name, size_t len);

typedef struct {
    uint64_t    sum;
    uint32_t    buckets[14];
} metric_histogram;

typedef struct {
    uint64_t            numbers[16];
    metric_histogram    latency;
} ngx_mesh_ffi_totals_t;

typedef struct {
    ngx_mesh_ffi_str_t  cluster;
    ngx_mesh_ffi_str_t  endpoint;
    ngx_mesh_ffi_str_t  labels;
    uintptr_t           tls;
    uintptr_t           tcp;
    uint64_t            numbers[7];
    metric_histogram    times[3];
} ngx_mesh_ffi_counts_t;

typedef struct {
    uintptr_t           status;
    metric_histogram    latency;
} ngx_mesh_ffi_status_t;

extern const uint32_t metric_bounds[13];
extern uintptr_t ngx_pagesize;
extern uintptr_t *ngx_stat_accepted;
extern uintptr_t *ngx_stat_handled;
void ngx_mesh_ffi_totals_take(ngx_mesh_ffi_totals_t *totals);
ngx_mesh_ffi_counts_t *ngx_mesh_ffi_counts_take(void);
ngx_mesh_ffi_status_t *ngx_mesh_ffi_status_take(void);
int64_t ngx_mesh_now_us(void);

void ngx_mesh_ffi_tracing(double ratio);
intptr_t ngx_mesh_ffi_tap(int64_t ms, uint32_t rate, uintptr_t lowest, uintptr_t highest, const char *method,
    size_t method_len, const char *path, size_t path_len, const char *peers, size_t peers_len);
uintptr_t ngx_mesh_ffi_reports_dropped_take(void);
void ngx_http_mesh_ffi_refused(ngx_http_request_t *r, const char *reason, size_t len);
]]
