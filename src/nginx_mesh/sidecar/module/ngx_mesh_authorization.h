/*
 * Tells whoever carries connections that access rules, the mTLS mode or trust bundles have changed. The files that hold
 * these are below those that carry connections, and therefore do not call them by name: these register a handler here.
 */

#ifndef NGX_MESH_AUTHORIZATION_H
#define NGX_MESH_AUTHORIZATION_H

typedef void (*ngx_mesh_authorization_handler_pt)(void);

/* There is one handler. */
void ngx_mesh_authorization_on_change(ngx_mesh_authorization_handler_pt handler);
void ngx_mesh_authorization_changed(void);

#endif
