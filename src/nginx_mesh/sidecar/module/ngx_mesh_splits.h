/* The traffic splits of services that are in use. */

#ifndef NGX_MESH_SPLITS_H
#define NGX_MESH_SPLITS_H

#include "ngx_mesh_clusters.h"
#include "ngx_mesh_lua.h"

ngx_uint_t ngx_mesh_splits_n(void);
/*
 * The cluster of a backend for a request to the service, or for a TCP connection when `r` is NULL, with its name in
 * `name`. NULL: the request stays with the service, whose own cluster is `root`. With `dry` the branch is not chosen
 * by chance but is the one that `dry` says.
 */
ngx_mesh_cluster_t *ngx_mesh_split_choose(const ngx_str_t *service, ngx_mesh_cluster_t *root, ngx_http_request_t *r,
    ngx_mesh_dry_t *dry, const ngx_str_t **name);

#endif
