#include "ngx_mesh_policy.h"

#include "ngx_mesh_limits.h"
#include "ngx_mesh_names.h"
#include "ngx_mesh_rules.h"
#include "ngx_mesh_strings.h"

typedef struct {
    ngx_mesh_rule_t     rule;
    ngx_str_t           name;           /* of the TrafficTarget */
    ngx_uint_t          tcp;            /* it allows connections only */
} ngx_mesh_grant_t;

/*
 * What names a caller, the oldest first. A port may have a thousand grants, and a request asks only those that name its
 * caller.
 */
typedef struct {
    ngx_str_node_t      node;           /* the SPIFFE ID */
    ngx_array_t         grants;         /* ngx_mesh_grant_t * */
    ngx_array_t         limits;         /* ngx_mesh_limit_t * */
} ngx_mesh_caller_t;

struct ngx_mesh_policy_s {
    ngx_pool_t         *pool;
    ngx_uint_t          restricted;     /* what no grant allows is denied */
    ngx_mesh_grant_t   *last;           /* the grant that was added last */
    ngx_mesh_names_t    callers;        /* ngx_mesh_caller_t */
    ngx_array_t         others;         /* ngx_mesh_limit_t *, for callers that no limit names */
};


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

    if (policy == NULL || ngx_array_init(&policy->others, pool, 2, sizeof(ngx_mesh_limit_t *)) != NGX_OK) {
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


ngx_mesh_rule_t *
ngx_mesh_ffi_policy_grant(ngx_mesh_policy_t *policy, const char *name, size_t len, ngx_uint_t tcp)
{
    ngx_str_t          str = ngx_mesh_str(name, len);
    ngx_mesh_grant_t  *grant;

    grant = ngx_palloc(policy->pool, sizeof(ngx_mesh_grant_t));

    if (grant == NULL
        || ngx_mesh_rule_init(&grant->rule, policy->pool) != NGX_OK
        || ngx_mesh_str_dup(&grant->name, policy->pool, &str) != NGX_OK)
    {
        return NULL;
    }

    grant->tcp = tcp;
    policy->last = grant;

    return &grant->rule;
}


/* The caller, found or added. NULL: out of memory. */
static ngx_mesh_caller_t *
ngx_mesh_policy_caller(ngx_mesh_policy_t *policy, const ngx_str_t *id)
{
    ngx_mesh_caller_t  *caller;

    caller = (ngx_mesh_caller_t *) ngx_mesh_names_find(&policy->callers, id);
    if (caller) {
        return caller;
    }

    caller = ngx_palloc(policy->pool, sizeof(ngx_mesh_caller_t));

    if (caller == NULL
        || ngx_array_init(&caller->grants, policy->pool, 2, sizeof(ngx_mesh_grant_t *)) != NGX_OK
        || ngx_array_init(&caller->limits, policy->pool, 2, sizeof(ngx_mesh_limit_t *)) != NGX_OK
        || ngx_mesh_str_dup(&caller->node.str, policy->pool, id) != NGX_OK)
    {
        return NULL;
    }

    ngx_mesh_names_insert(&policy->callers, &caller->node);

    return caller;
}


static ngx_int_t
ngx_mesh_policy_push(ngx_array_t *array, void *pointer)
{
    void  **p;

    p = ngx_array_push(array);
    if (p == NULL) {
        return NGX_ERROR;
    }

    *p = pointer;

    return NGX_OK;
}


ngx_int_t
ngx_mesh_ffi_policy_grant_source(ngx_mesh_policy_t *policy, const char *id, size_t len)
{
    ngx_str_t           name = ngx_mesh_str(id, len);
    ngx_mesh_caller_t  *caller;

    caller = ngx_mesh_policy_caller(policy, &name);

    return caller ? ngx_mesh_policy_push(&caller->grants, policy->last) : NGX_ERROR;
}


ngx_mesh_limit_t *
ngx_mesh_ffi_policy_limit(ngx_mesh_policy_t *policy, const char *name, size_t len, size_t policy_len, double rate,
    double burst, double delay)
{
    ngx_str_t   str = ngx_mesh_str(name, len);
    limit_rate  limit = {
        .rate = (uint64_t) rate,
        .burst = (uint64_t) burst * 1000,
        .delay = delay < 0 ? UINT64_MAX : (uint64_t) delay * 1000
    };

    return ngx_mesh_limit_new(policy->pool, &str, policy_len, &limit);
}


ngx_int_t
ngx_mesh_ffi_policy_limit_source(ngx_mesh_policy_t *policy, ngx_mesh_limit_t *limit, const char *id, size_t len)
{
    ngx_str_t           name = ngx_mesh_str(id, len);
    ngx_mesh_caller_t  *caller;

    caller = ngx_mesh_policy_caller(policy, &name);

    return caller ? ngx_mesh_policy_push(&caller->limits, limit) : NGX_ERROR;
}


ngx_int_t
ngx_mesh_ffi_policy_limit_others(ngx_mesh_policy_t *policy, ngx_mesh_limit_t *limit)
{
    return ngx_mesh_policy_push(&policy->others, limit);
}


/* NULL: nothing names the caller. */
static ngx_mesh_caller_t *
ngx_mesh_policy_find(ngx_mesh_policy_t *policy, const ngx_str_t *id)
{
    return id->len ? (ngx_mesh_caller_t *) ngx_mesh_names_find(&policy->callers, id) : NULL;
}


ngx_uint_t
ngx_mesh_policy_allows(ngx_mesh_policy_t *policy, const ngx_str_t *id, ngx_http_request_t *r, ngx_str_t *by)
{
    ngx_uint_t           i;
    ngx_mesh_grant_t   **grant;
    ngx_mesh_caller_t   *caller;

    ngx_str_null(by);

    if (policy == NULL || !policy->restricted) {
        return 1;
    }

    caller = ngx_mesh_policy_find(policy, id);
    if (caller == NULL) {
        return 0;
    }

    grant = caller->grants.elts;

    for (i = 0; i < caller->grants.nelts; i++) {
        if (r ? !grant[i]->tcp && ngx_mesh_rule_matches(r, &grant[i]->rule, 0)
              : grant[i]->rule.matches.nelts == 0)
        {
            *by = grant[i]->name;
            return 1;
        }
    }

    return 0;
}


ngx_int_t
ngx_mesh_policy_wait(ngx_mesh_policy_t *policy, const ngx_str_t *id, ngx_http_request_t *r, ngx_str_t *by)
{
    ngx_mesh_caller_t  *caller;

    if (policy == NULL) {
        ngx_str_null(by);
        return 0;
    }

    caller = ngx_mesh_policy_find(policy, id);

    return ngx_mesh_limits_wait(caller ? &caller->limits : NULL, &policy->others, r, by);
}


ngx_uint_t
ngx_mesh_policy_dry_run(ngx_mesh_policy_t *policy, const ngx_str_t *id, ngx_http_request_t *r,
    ngx_mesh_dry_limit_t *found, ngx_uint_t max)
{
    ngx_mesh_caller_t  *caller;

    if (policy == NULL) {
        return 0;
    }

    caller = ngx_mesh_policy_find(policy, id);

    return ngx_mesh_limits_dry_run(caller ? &caller->limits : NULL, &policy->others, r, found, max);
}
