/* The rate limits of an inbound port. */

#ifndef NGX_MESH_LIMITS_H
#define NGX_MESH_LIMITS_H

#include "limit.h"
#include "ngx_mesh_rules.h"

struct ngx_mesh_limit_s {
    ngx_mesh_rule_t     rule;
    ngx_array_t         addresses;      /* struct in6_addr, of its sources; sorted when they are first searched */
    ngx_uint_t          sorted;
    limit_rate          rate;
    ngx_str_t           name;           /* under which it counts */
    ngx_str_t           policy;         /* the name of the RateLimit, which is the beginning of `name` */
    uint32_t            hash;           /* of the name */
    ngx_uint_t          fit;            /* whether it is for the request at hand */
};

/* A limit for nobody yet, with an empty rule. NULL: out of memory. */
ngx_mesh_limit_t *ngx_mesh_limit_new(ngx_pool_t *pool, const ngx_str_t *name, size_t policy_len,
    const limit_rate *rate);
/*
 * As ngx_mesh_policy_wait. Both arrays are of ngx_mesh_limit_t *, the oldest policy first. `named` are the limits that
 * name the caller's ID, NULL when it proved none; `others` are those for callers that no limit names.
 */
ngx_int_t ngx_mesh_limits_wait(const ngx_array_t *named, const ngx_array_t *others, ngx_http_request_t *r,
    ngx_str_t *by);
/* As ngx_mesh_policy_dry_run. */
ngx_uint_t ngx_mesh_limits_dry_run(const ngx_array_t *named, const ngx_array_t *others, ngx_http_request_t *r,
    ngx_mesh_dry_limit_t *found, ngx_uint_t max);

#endif
