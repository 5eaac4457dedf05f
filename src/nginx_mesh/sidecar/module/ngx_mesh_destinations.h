/* What the addresses mean that the application dials. */

#ifndef NGX_MESH_DESTINATIONS_H
#define NGX_MESH_DESTINATIONS_H

#include <ngx_config.h>
#include <ngx_core.h>

typedef struct {
    ngx_str_node_t       node;          /* "ip:port" */
    ngx_uint_t           protocols;     /* NGX_MESH_PROTOCOL_* */
    ngx_str_t            cluster;
    ngx_str_t            service;       /* whose split and circuit breaker apply */
} ngx_mesh_destination_t;

/* NULL: the address is not of the mesh. */
ngx_mesh_destination_t *ngx_mesh_destination_find(const ngx_str_t *address);

#endif
