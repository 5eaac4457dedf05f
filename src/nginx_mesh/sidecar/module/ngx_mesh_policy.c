/*
 * The policy of an inbound port: who may do what, and how often. Lua builds it from the state (lua/mesh/state.lua); it
 * is never changed, only replaced.
 */

#include <ngx_http.h>

#include "ngx_mesh_limits.h"

typedef struct {
    ngx_mesh_rule_t     rule;
    ngx_str_t           name;           /* of the TrafficTarget */
} ngx_mesh_grant_t;

struct ngx_mesh_policy_s {
    ngx_pool_t         *pool;
    ngx_uint_t          restricted;     /* what no grant allows is denied */
    ngx_array_t         grants;         /* ngx_mesh_grant_t */
    ngx_array_t         limits;         /* ngx_mesh_limits_init */
};


/* FFI. NULL: out of memory. */
ngx_mesh_policy_t *
ngx_mesh_ffi_policy_new(ngx_uint_t restricted)
{
    ngx_pool_t         *pool;
    ngx_mesh_policy_t  *policy;

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    policy = ngx_pcalloc(pool, sizeof(ngx_mesh_policy_t));

    if (policy == NULL
        || ngx_array_init(&policy->grants, pool, 4, sizeof(ngx_mesh_grant_t)) != NGX_OK
        || ngx_mesh_limits_init(&policy->limits, pool) != NGX_OK)
    {
        ngx_destroy_pool(pool);
        return NULL;
    }

    policy->pool = pool;
    policy->restricted = restricted;

    return policy;
}


void
ngx_mesh_policy_free(ngx_mesh_policy_t *policy)
{
    if (policy) {
        ngx_destroy_pool(policy->pool);
    }
}


/* FFI. Adds the grant of a TrafficTarget: the rule, to be filled in before the next is added. NULL: out of memory. */
ngx_mesh_rule_t *
ngx_mesh_ffi_policy_grant(ngx_mesh_policy_t *policy, const u_char *name, size_t len)
{
    ngx_str_t          str = { len, (u_char *) name };
    ngx_mesh_grant_t  *grant;

    grant = ngx_array_push(&policy->grants);

    if (grant == NULL || ngx_mesh_rule_init(&grant->rule, policy->pool) != NGX_OK) {
        return NULL;
    }

    grant->name.len = len;
    grant->name.data = ngx_pstrdup(policy->pool, &str);

    return grant->name.data ? &grant->rule : NULL;
}


/*
 * FFI. Adds a limit, counted under its name, which begins with that of the RateLimit. `rate`: requests in 1000 s;
 * `burst` and `delay`: requests, a negative `delay` for no delay. To be filled in before the next is added. NULL: out of
 * memory.
 */
ngx_mesh_limit_t *
ngx_mesh_ffi_policy_limit(ngx_mesh_policy_t *policy, const u_char *name, size_t len, size_t policy_len, double rate,
    double burst, double delay)
{
    ngx_str_t   str = { len, (u_char *) name };
    limit_rate  limit = {
        .rate = (uint64_t) rate,
        .burst = (uint64_t) burst * 1000,
        .delay = delay < 0 ? UINT64_MAX : (uint64_t) delay * 1000
    };

    return ngx_mesh_limits_add(&policy->limits, &str, policy_len, &limit);
}


ngx_uint_t
ngx_mesh_policy_allows(ngx_mesh_policy_t *policy, const ngx_str_t *id, ngx_http_request_t *r, ngx_str_t *by)
{
    ngx_uint_t         i;
    ngx_mesh_grant_t  *grant;

    ngx_str_null(by);

    if (policy == NULL || !policy->restricted) {
        return 1;
    }

    grant = policy->grants.elts;

    for (i = 0; i < policy->grants.nelts; i++) {
        if (ngx_mesh_rule_names(&grant[i].rule, id)
            && (r ? ngx_mesh_rule_matches(r, &grant[i].rule, 0) : grant[i].rule.matches.nelts == 0))
        {
            *by = grant[i].name;
            return 1;
        }
    }

    return 0;
}


ngx_int_t
ngx_mesh_policy_wait(ngx_mesh_policy_t *policy, const ngx_str_t *id, ngx_http_request_t *r, ngx_str_t *by)
{
    return policy ? ngx_mesh_limits_wait(&policy->limits, id, r, by) : 0;
}
