/* Whether a TCP connection from the wire may reach the application. */

#ifndef NGX_MESH_TCP_ACCESS_H
#define NGX_MESH_TCP_ACCESS_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

/* What ngx_mesh_tcp_access returns when access rules deny the connection. */
extern const char  ngx_mesh_tcp_denied[];

/* NULL: the caller may connect. Otherwise the reason why not. `by` is as with ngx_mesh_policy_allows. */
const char *ngx_mesh_tcp_access(ngx_connection_t *c, ngx_uint_t tls, ngx_str_t *by);

#endif
