/* TLS connections, whoever is at their other end: counting handshakes, and saving system calls. */

#ifndef NGX_MESH_TLS_H
#define NGX_MESH_TLS_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

/* Counts the handshakes of a context's connections; `proved` tells whether the other side proved who it is. */
ngx_int_t ngx_mesh_tls_count_served(SSL_CTX *ctx, ngx_uint_t (*proved)(const SSL *ssl));
/* Counts the handshake that is about to begin. */
ngx_int_t ngx_mesh_tls_count_call(SSL *ssl);
/* From now on the socket is not read when it is known to be empty. */
void ngx_mesh_tls_read_once(ngx_connection_t *c);

#endif
