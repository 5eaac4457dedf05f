/* The values of variables that HTTP and stream have in common: nginx's variables are the same type in both. */

#ifndef NGX_MESH_VARIABLES_H
#define NGX_MESH_VARIABLES_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mesh_balancer.h"

/* An empty value is one that is not found. */
void ngx_mesh_variable_set(ngx_variable_value_t *v, u_char *data, size_t len);
/* `value` may be NULL, which is as an empty one. */
ngx_int_t ngx_mesh_variable_str(ngx_variable_value_t *v, const ngx_str_t *value);
ngx_int_t ngx_mesh_variable_original(ngx_connection_t *c, ngx_variable_value_t *v);
ngx_int_t ngx_mesh_variable_peer(ngx_connection_t *c, ngx_variable_value_t *v);
/* "1" when the access log has this format: 0 default, 1 JSON. */
ngx_int_t ngx_mesh_variable_log(ngx_variable_value_t *v, uintptr_t json);
/* `a` is NULL for what is not balanced. */
ngx_int_t ngx_mesh_variable_cluster(const ngx_mesh_attempts_t *a, ngx_variable_value_t *v);
ngx_int_t ngx_mesh_variable_upstream_id(const ngx_mesh_attempts_t *a, ngx_variable_value_t *v);

#endif
