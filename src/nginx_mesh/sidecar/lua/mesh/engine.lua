-- The C module's functions, with Lua's types. See module/ngx_mesh.h.

local ffi = require "ffi"
local base = require "resty.core.base"

local C = ffi.C
local ffi_str = ffi.string
local get_request = base.get_request

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

local UINT64_MAX = 0xffffffffffffffffULL

local data = ffi.new "const char *[1]"
local len = ffi.new "size_t[1]"
local port = ffi.new "uintptr_t[1]"
local totals = ffi.new "ngx_mesh_ffi_totals_t"

local _M = {
    PROTOCOL_HTTP = 1,
    PROTOCOL_TCP = 2,
    PAGE_SIZE = tonumber(C.ngx_pagesize),
}

-- Milliseconds.
_M.LATENCY_BOUNDS = {}

for i = 1, 13 do
    _M.LATENCY_BOUNDS[i] = C.metric_bounds[i - 1]
end

-- What the module counts, in its order (ngx_mesh.h); session statuses are nginx's.
_M.TOTALS = {
    "denied", "server_ok", "server_failed", "client_ok", "client_failed", "1xx", "2xx", "3xx", "4xx", "5xx",
    "session_200", "session_400", "session_403", "session_500", "session_502", "session_503",
}
_M.HTTP_NUMBERS = { "sent", "received", "fails" }
_M.TCP_NUMBERS = { "connections", "sent", "received", "fails" }
_M.TCP_TIMES = { "connect_time", "first_byte_time", "response_time" }

local MODES = { off = 0, permissive = 1, strict = 2 }

local LOG_LEVELS = {
    emerg = 1, alert = 2, crit = 3, error = 4, warn = 5, notice = 6, info = 7,
    debug = 0x7ffffff0,                                 -- NGX_LOG_DEBUG_ALL
}

_M.LB_METHODS = {
    ["round_robin"] = 0,
    ["least_conn"] = 1,
    ["least_time"] = 2,
    ["least_time last_byte"] = 3,
    ["least_time last_byte inflight"] = 4,
    ["random"] = 5,
    ["random two"] = 6,
    ["random two least_conn"] = 7,
    ["random two least_time"] = 8,
    ["random two least_time=last_byte"] = 9,
}

_M.BREAKER_STATES = { [0] = "closed", [1] = "open", [2] = "half-open" }

local OK, BUSY, DECLINED, ABORT = 0, -3, -5, -6
local SELECTED = { [OK] = "ok", [DECLINED] = "unknown", [BUSY] = "empty", [ABORT] = "open" }


local function check(rc)
    if rc ~= OK then
        error("out of memory", 2)
    end
end


function _M.settings(mode, log_format, log_level, body_limit)
    C.ngx_mesh_ffi_settings(MODES[mode], log_format == "json" and 1 or 0, LOG_LEVELS[log_level], body_limit)
end


-- Reports requests to the node for some seconds: `tap` is as schema.check_tap has it.
function _M.tap(tap)
    local peers = tap.peers and #tap.peers > 0 and "\n" .. table.concat(tap.peers, "\n") .. "\n" or ""
    local method, path = tap.method or "", tap.path or ""

    check(C.ngx_mesh_ffi_tap(tap.seconds * 1000, tap.max_rps, tap.lowest or 0, tap.highest or 999,
                             method, #method, path, #path, peers, #peers))
end


-- Of new traces, those that are sampled; nil: requests are in no traces.
function _M.tracing(ratio)
    C.ngx_mesh_ffi_tracing(ratio or -1)
end


local function fill_rule(rule, matches)
    if rule == nil then
        error("out of memory")
    end

    for _, match in ipairs(matches or {}) do
        local path = match.path_regex or ""
        check(C.ngx_mesh_ffi_rule_match(rule, path, #path))

        for _, method in ipairs(match.methods or {}) do
            check(C.ngx_mesh_ffi_rule_method(rule, method, #method))
        end

        for name, regex in pairs(match.headers or {}) do
            check(C.ngx_mesh_ffi_rule_header(rule, name, #name, regex, #regex))
        end
    end
end


local function add_grant(policy, grant)
    local tcp = grant.tcp and 1 or 0
    fill_rule(C.ngx_mesh_ffi_policy_grant(policy, grant.target, #grant.target, tcp), grant.matches)

    for _, id in ipairs(grant.sources) do
        check(C.ngx_mesh_ffi_policy_grant_source(policy, id, #id))
    end
end


-- Of the RateLimit that a limit is of.
function _M.ratelimit_name(limit)
    return limit:match("^[^/]*/[^/]*") or limit
end


local function add_limit(policy, limit)
    local ratelimit = _M.ratelimit_name(limit.name)
    local added = C.ngx_mesh_ffi_policy_limit(policy, limit.name, #limit.name, #ratelimit, limit.rate,
                                              limit.burst or 0, limit.delay or 0)

    if added == nil then
        error("out of memory")
    end

    for _, address in ipairs(limit.addresses or {}) do
        check(C.ngx_mesh_ffi_limit_address(added, address, #address))
    end

    fill_rule(C.ngx_mesh_ffi_limit_rule(added), limit.matches)

    local sources = limit.sources or {}

    for _, id in ipairs(sources) do
        check(C.ngx_mesh_ffi_policy_limit_source(policy, added, id, #id))
    end

    if #sources == 0 then
        check(C.ngx_mesh_ffi_policy_limit_others(policy, added))
    end
end


-- `grants`: a list, or nil when everybody may do everything. `limits`: a list.
local function new_policy(grants, limits)
    local policy = C.ngx_mesh_ffi_policy_new(grants and 1 or 0)

    if policy == nil then
        error("out of memory")
    end

    for _, grant in ipairs(grants or {}) do
        add_grant(policy, grant)
    end

    for _, limit in ipairs(limits) do
        add_limit(policy, limit)
    end

    return policy
end


-- What a container port speaks (0: it is not declared), who may do what there, and how often.
function _M.inbound(number, protocols, grants, limits)
    local policy

    if grants or #limits > 0 then
        policy = new_policy(grants, limits)
    end

    C.ngx_mesh_ffi_inbound(number, protocols, policy)
end


function _M.is_address(address)
    return C.ngx_mesh_ffi_address_check(address, #address) == OK
end


function _M.destination_put(address, protocols, cluster, service)
    check(C.ngx_mesh_ffi_destination_put(address, #address, protocols, cluster, #cluster, service, #service))
end


function _M.destination_delete(address)
    C.ngx_mesh_ffi_destination_delete(address, #address)
end


function _M.cluster_put(name, method)
    check(C.ngx_mesh_ffi_cluster_put(name, #name, _M.LB_METHODS[method]))
end


function _M.cluster_delete(name)
    C.ngx_mesh_ffi_cluster_delete(name, #name)
end


function _M.endpoint_put(cluster, address, tls, spiffe_id)
    check(C.ngx_mesh_ffi_endpoint_put(cluster, #cluster, address, #address, tls and 1 or 0, spiffe_id, #spiffe_id))
end


-- `labels`: what its requests that are still under way count under.
function _M.endpoint_delete(cluster, address, labels)
    C.ngx_mesh_ffi_endpoint_delete(cluster, #cluster, address, #address, labels, #labels)
end


-- `from` has backends and matches, as in the state.
function _M.split_put(service, from)
    local split = C.ngx_mesh_ffi_split_new(service, #service)

    if split == nil then
        error("out of memory")
    end

    for _, backend in ipairs(from.backends) do
        check(C.ngx_mesh_ffi_split_backend(split, backend.cluster, #backend.cluster, backend.weight))
    end

    fill_rule(C.ngx_mesh_ffi_split_rule(split), from.matches)
    C.ngx_mesh_ffi_split_put(split)
end


function _M.split_delete(service)
    C.ngx_mesh_ffi_split_delete(service, #service)
end


-- `timeout`: milliseconds; `fallback`: a cluster, or "".
function _M.breaker_put(service, errors, timeout, fallback)
    check(C.ngx_mesh_ffi_breaker_put(service, #service, errors, timeout, fallback, #fallback))
end


function _M.breaker_delete(service)
    C.ngx_mesh_ffi_breaker_delete(service, #service)
end


-- Of the breaker of a service in use: a key of BREAKER_STATES.
function _M.breaker_state(service)
    return tonumber(C.ngx_mesh_ffi_breaker_state(service, #service))
end


-- How often it opened since the last call.
function _M.take_breaker_trips(service)
    return tonumber(C.ngx_mesh_ffi_breaker_trips_take(service, #service))
end


local function set_str(str, text)
    str.len = #text
    str.data = text
end


-- nil, or what is wrong with it; then the identity in force stays. `identity` is as in the state: it keeps its strings
-- alive during the call.
function _M.identity(identity)
    local federated = identity.federated or {}
    local names = {}

    for name in pairs(federated) do
        names[#names + 1] = name
    end

    table.sort(names)

    local strs = ffi.new("ngx_mesh_ffi_str_t[?]", 3 + 2 * #names)

    set_str(strs[0], identity.svid)
    set_str(strs[1], identity.key)
    set_str(strs[2], identity.bundle)

    for i, name in ipairs(names) do
        set_str(strs[1 + 2 * i], name)
        set_str(strs[2 + 2 * i], federated[name])
    end

    local err = C.ngx_mesh_ffi_identity(strs, strs + 1, strs + 2, strs + 3, #names)

    if err ~= nil then
        return ffi_str(err)
    end
end


function _M.identity_clear()
    C.ngx_mesh_ffi_identity_clear()
end


-- Seconds since the epoch, or 0 without an identity.
function _M.identity_expires()
    return tonumber(C.ngx_mesh_ffi_identity_expires())
end


-- The address and the port that the caller of the request at hand dialled; nil when it was not redirected.
function _M.original()
    local n = C.ngx_http_mesh_ffi_original(get_request(), data, port)

    if n ~= 0 then
        return ffi_str(data[0], n), tonumber(port[0])
    end
end


-- The caller's proved SPIFFE ID; false when it speaks TLS but proved none; nil when it speaks plaintext.
function _M.peer()
    local rc = C.ngx_http_mesh_ffi_peer(get_request(), data, len)

    if rc == 1 then
        return ffi_str(data[0], len[0])
    end

    if rc == 0 then
        return false
    end
end


-- Strips the request of what claims to be the caller's identity, however it is spelt.
function _M.disown_identity()
    C.ngx_http_mesh_ffi_disown_identity(get_request())
end


-- Where the request at hand goes: "ok"; "unknown": its cluster is not loaded; "empty" and the cluster without an
-- endpoint; "open" and the service with an open circuit and no fallback.
function _M.select()
    local rc = tonumber(C.ngx_http_mesh_ffi_select(get_request(), data, len))
    local selected = SELECTED[rc] or error("out of memory")

    if selected == "empty" or selected == "open" then
        return selected, ffi_str(data[0], len[0])
    end

    return selected
end


function _M.forward(number)
    check(C.ngx_http_mesh_ffi_forward(get_request(), number))
end


-- Whether the request's body may be that long, as far as it is announced; else it is counted as it comes.
function _M.limit_body(bytes)
    return C.ngx_http_mesh_ffi_body_limit(get_request(), bytes) == OK
end


-- Whether access rules allow the request.
function _M.allowed()
    return C.ngx_http_mesh_ffi_allowed(get_request()) ~= 0
end


-- The name of the grant by which access rules allowed the request; nil: none was needed, or none did.
function _M.granted()
    local n = C.ngx_http_mesh_ffi_granted(get_request(), data)

    if n ~= 0 then
        return ffi_str(data[0], n)
    end
end


-- Milliseconds that rate limits let the request wait, or nil when it is over one; then, or when it has to wait, the
-- name of the RateLimit.
function _M.limit()
    local wait = tonumber(C.ngx_http_mesh_ffi_limit(get_request(), data, len))

    if wait == 0 then
        return 0
    end

    return wait > 0 and wait or nil, ffi_str(data[0], len[0])
end


-- Makes the request at hand one that is only asked about. Whether its connection says what is asked.
function _M.explain()
    return C.ngx_http_mesh_ffi_explain(get_request()) == OK
end


local function str(from)
    return ffi_str(from.data, from.len)
end


-- Where it would go, if branch number `branch` (from 0 on) of a split is chosen: as select(), and what it would pass.
function _M.explain_route(tcp, branch)
    local dry = ffi.new("ngx_mesh_dry_t", { branch = branch })
    local rc = tonumber(C.ngx_http_mesh_ffi_explain_route(get_request(), tcp and 1 or 0, dry))
    local breakers = {}

    for i = 0, tonumber(dry.nbreakers) - 1 do
        local b = dry.breakers[i]
        local state = _M.BREAKER_STATES[tonumber(b.state)]

        breakers[i + 1] = { service = str(b.service), state = state, wait = tonumber(b.wait) }
    end

    return {
        selected = SELECTED[rc],
        name = str(dry.name),
        cluster = str(dry.cluster),
        branches = tonumber(dry.branches),
        weight = dry.weight,
        usable = dry.usable ~= 0,
        breakers = breakers,
    }
end


-- Of a TCP connection from the wire: why it would be closed; or nil, and the grant that allows it, if one is needed.
function _M.explain_tcp()
    local by = ffi.new "ngx_mesh_ffi_str_t"
    local why = C.ngx_http_mesh_ffi_explain_tcp(get_request(), by)

    if why ~= nil then
        return ffi_str(why)
    end

    return nil, by.len > 0 and str(by) or nil
end


-- The limits that it would be taken into, in order; thousandths of requests (a `delay` of nodelay is -1), milliseconds.
function _M.explain_limits()
    local request = get_request()
    local n = C.ngx_http_mesh_ffi_explain_limits(request, nil, 0)
    local found = ffi.new("ngx_mesh_dry_limit_t[?]", n)
    local limits = {}

    C.ngx_http_mesh_ffi_explain_limits(request, found, n)

    for i = 0, tonumber(n) - 1 do
        local limit = found[i]

        limits[i + 1] = {
            name = str(limit.name),
            ratelimit = str(limit.policy),
            rate = tonumber(limit.rate),
            burst = tonumber(limit.burst),
            delay = limit.delay == UINT64_MAX and -1 or tonumber(limit.delay),
            excess = tonumber(limit.excess),
            wait = tonumber(limit.wait),
            admits = limit.admits ~= 0,
        }
    end

    return limits
end


-- Milliseconds for which an endpoint of a cluster in use is passed over, as it failed.
function _M.endpoint_down(cluster, address)
    return tonumber(C.ngx_mesh_ffi_endpoint_down(cluster, #cluster, address, #address))
end


-- Says, to whom the request is reported, why it is refused.
function _M.refused(reason)
    C.ngx_http_mesh_ffi_refused(get_request(), reason, #reason)
end


-- Reports that the node did not take since the last call.
function _M.take_reports_dropped()
    return tonumber(C.ngx_mesh_ffi_reports_dropped_take())
end


-- The buckets that have something, by number, and "sum".
local function histogram(from)
    local found = { sum = tonumber(from.sum) }

    for i = 1, #_M.LATENCY_BOUNDS + 1 do
        local n = from.buckets[i - 1]

        if n > 0 then
            found[i] = n
        end
    end

    return found
end


local function numbers(from, names, first)
    local found = {}

    for i, name in ipairs(names) do
        found[name] = tonumber(from[first + i - 1])
    end

    return found
end


-- What was counted since the last call: numbers by the names of TOTALS, and the latency of requests from the wire.
function _M.take_totals()
    C.ngx_mesh_ffi_totals_take(totals)

    return numbers(totals.numbers, _M.TOTALS, 0), histogram(totals.latency)
end


local function take_statuses()
    local statuses = {}

    while true do
        local status = C.ngx_mesh_ffi_status_take()

        if status == nil then
            return statuses
        end

        statuses[tonumber(status.status)] = histogram(status.latency)
    end
end


-- What was counted of one endpoint since it was last taken; nil: there is no more. `labels` are nil when the state has
-- them. `http` and, when there was any TCP, `tcp` are numbers by their names, `statuses` histograms by status, `times`
-- by name.
function _M.take_counts()
    local counts = C.ngx_mesh_ffi_counts_take()

    if counts == nil then
        return nil
    end

    local taken = {
        cluster = str(counts.cluster),
        endpoint = str(counts.endpoint),
        labels = counts.labels.len > 0 and str(counts.labels) or nil,
        tls = counts.tls ~= 0,
        http = numbers(counts.numbers, _M.HTTP_NUMBERS, 0),
        statuses = take_statuses(),
    }

    if counts.tcp ~= 0 then
        taken.tcp = numbers(counts.numbers, _M.TCP_NUMBERS, #_M.HTTP_NUMBERS)
        taken.times = {}

        for i, name in ipairs(_M.TCP_TIMES) do
            taken.times[name] = histogram(counts.times[i - 1])
        end
    end

    return taken
end


-- Connections since the sidecar started: accepted, and those of them that found a place.
function _M.connections()
    return tonumber(C.ngx_stat_accepted[0]), tonumber(C.ngx_stat_handled[0])
end


-- Seconds by a clock that nobody sets.
function _M.now()
    return tonumber(C.ngx_mesh_now_us()) / 1e6
end


return _M
