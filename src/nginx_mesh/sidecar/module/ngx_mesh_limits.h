/*
 * The rate limits of an inbound port: ngx_mesh_limits.c.
 */

#ifndef NGX_MESH_LIMITS_H
#define NGX_MESH_LIMITS_H

#include "limit.h"
#include "ngx_mesh_rules.h"

ngx_int_t ngx_mesh_limits_init(ngx_array_t *limits, ngx_pool_t *pool);
/* Adds a limit, counted under its name; whom and what it limits is the rule's. NULL: out of memory. */
ngx_mesh_rule_t *ngx_mesh_limits_add(ngx_array_t *limits, const ngx_str_t *name, const limit_rate *rate);
/* Takes the request in. Seconds that it has to wait; -1: it is over a limit. */
double ngx_mesh_limits_wait(const ngx_array_t *limits, const ngx_str_t *id, ngx_http_request_t *r);

#endif
