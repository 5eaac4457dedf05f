/*
 * Rules about requests, which grants, limits and splits have in common: ngx_mesh_rules.c.
 */

#ifndef NGX_MESH_RULES_H
#define NGX_MESH_RULES_H

#include "ngx_mesh.h"

typedef struct ngx_mesh_rule_s {
    ngx_array_t         matches;        /* any of them; none: every request */
} ngx_mesh_rule_t;

ngx_int_t ngx_mesh_rule_init(ngx_mesh_rule_t *rule, ngx_pool_t *pool);
/*
 * `if_unsure`: what is said when applications may take the request for one or another, and a match holds for some readings
 * only; when a path is too ambiguous for that; when a pattern takes too long.
 */
ngx_uint_t ngx_mesh_rule_matches(ngx_http_request_t *r, const ngx_mesh_rule_t *rule, ngx_uint_t if_unsure);

#endif
