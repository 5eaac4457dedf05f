/* What this worker counted that belongs to no endpoint. */

#ifndef NGX_MESH_TOTALS_H
#define NGX_MESH_TOTALS_H

#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mesh_lua.h"

void ngx_mesh_count_total(ngx_mesh_total_e total);
/* A request from the wire, with the status of its answer and the time to the answer's end. */
void ngx_mesh_count_received(ngx_uint_t status, uint64_t ms);
/* A TCP connection from the wire that has ended, with the status that nginx gave the session. */
void ngx_mesh_count_accepted(ngx_uint_t status);

#endif
