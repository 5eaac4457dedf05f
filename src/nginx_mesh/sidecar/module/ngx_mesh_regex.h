/* Regular expressions, compiled once for all rules that have them. */

#ifndef NGX_MESH_REGEX_H
#define NGX_MESH_REGEX_H

#include <ngx_config.h>
#include <ngx_core.h>

#define NGX_MESH_REGEX_SUBJECT_MAX  8192        /* bytes that are matched at most */

typedef struct ngx_mesh_regex_s  ngx_mesh_regex_t;

/*
 * Compiles the expression, and keeps it as long as the pool lives. An expression that is malformed is kept too, and
 * matches nothing. NULL: out of memory.
 */
ngx_mesh_regex_t *ngx_mesh_regex_compile(ngx_pool_t *pool, const ngx_str_t *text);
ngx_uint_t ngx_mesh_regex_is_valid(const ngx_mesh_regex_t *regex);
/* `if_unsure`: the answer when the subject is too long, or matching it took too many steps to tell. */
ngx_uint_t ngx_mesh_regex_matches(const ngx_mesh_regex_t *regex, const ngx_str_t *subject, ngx_uint_t if_unsure);

#endif
