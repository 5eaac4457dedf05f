/* The ports of the pod: what is spoken there, and by which policy. */

#ifndef NGX_MESH_INBOUND_H
#define NGX_MESH_INBOUND_H

#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mesh_lua.h"

/* The protocols (NGX_MESH_PROTOCOL_*) of a container port; 0: no container declares it. */
ngx_uint_t ngx_mesh_inbound_find(in_port_t port);
/* NULL: everybody may do everything there. */
ngx_mesh_policy_t *ngx_mesh_inbound_policy(in_port_t port);

#endif
