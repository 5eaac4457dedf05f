/* Rules about requests. Grants, rate limits and splits have them. */

#ifndef NGX_MESH_RULES_H
#define NGX_MESH_RULES_H

#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mesh_lua.h"

struct ngx_mesh_rule_s {
    ngx_array_t         matches;        /* one of them must match; without any, every request does */
};

ngx_int_t ngx_mesh_rule_init(ngx_mesh_rule_t *rule, ngx_pool_t *pool);
/*
 * `if_unsure`: the answer when applications may understand the request in more than one way and only some of these
 * match, when a path is too ambiguous to say so, and when matching an expression took too many steps.
 */
ngx_uint_t ngx_mesh_rule_matches(ngx_http_request_t *r, const ngx_mesh_rule_t *rule, ngx_uint_t if_unsure);

#endif
