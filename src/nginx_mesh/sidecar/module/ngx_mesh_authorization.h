/*
 * Who hears when what decides about authorization has changed: access rules, the mTLS mode, trust bundles. The tables call
 * this; whoever carries connections is above them and registers here.
 */

#ifndef NGX_MESH_AUTHORIZATION_H
#define NGX_MESH_AUTHORIZATION_H

typedef void (*ngx_mesh_authorization_handler_pt)(void);

/* There is one handler. */
void ngx_mesh_authorization_on_change(ngx_mesh_authorization_handler_pt handler);
void ngx_mesh_authorization_changed(void);

#endif
