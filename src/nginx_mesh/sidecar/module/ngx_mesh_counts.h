/*
 * What this worker counted of endpoints and did not hand over yet. Lua takes it every second and adds it to shared
 * memory. How the series are called is known there only.
 */

#ifndef NGX_MESH_COUNTS_H
#define NGX_MESH_COUNTS_H

#include "ngx_mesh_clusters.h"
#include "ngx_mesh_lua.h"

/* A request that went to the endpoint, with the status that the application got and the time that it waited. */
void ngx_mesh_count_response(ngx_mesh_endpoint_t *e, ngx_uint_t status, uint64_t ms);
void ngx_mesh_count_number(ngx_mesh_endpoint_t *e, ngx_mesh_number_e number, uint64_t n);
void ngx_mesh_count_time(ngx_mesh_endpoint_t *e, ngx_mesh_time_e time, uint64_t ms);

#endif
