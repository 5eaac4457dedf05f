/*
 * The rate limits of an inbound port: ngx_mesh_limits.c.
 */

#ifndef NGX_MESH_LIMITS_H
#define NGX_MESH_LIMITS_H

#include "limit.h"
#include "ngx_mesh_rules.h"

typedef struct ngx_mesh_limit_s {
    ngx_mesh_rule_t     rule;
    ngx_array_t         addresses;      /* struct in6_addr: where its sources are; sorted when first asked */
    ngx_uint_t          sorted;
    limit_rate          rate;
    ngx_str_t           name;           /* under which it counts */
    ngx_str_t           policy;         /* the RateLimit's: what the name begins with */
    uint32_t            hash;           /* of the name */
    ngx_uint_t          fit;            /* whether it is for the caller at hand */
} ngx_mesh_limit_t;

ngx_int_t ngx_mesh_limits_init(ngx_array_t *limits, ngx_pool_t *pool);
/* Adds a limit, whose rule is still empty. NULL: out of memory. */
ngx_mesh_limit_t *ngx_mesh_limits_add(ngx_array_t *limits, const ngx_str_t *name, size_t policy_len,
    const limit_rate *rate);
/* As ngx_mesh_policy_wait. */
ngx_int_t ngx_mesh_limits_wait(const ngx_array_t *limits, const ngx_str_t *id, ngx_http_request_t *r, ngx_str_t *by);

#endif
