/* A table of things by their names. Whoever has a table says what the things are: each begins with a ngx_str_node_t. */

#ifndef NGX_MESH_NAMES_H
#define NGX_MESH_NAMES_H

#include <ngx_config.h>
#include <ngx_core.h>

/* All zeros is an empty table. */
typedef struct {
    ngx_rbtree_t             tree;
    ngx_rbtree_node_t        sentinel;
    ngx_uint_t               n;
} ngx_mesh_names_t;

/* NULL: there is nothing by that name. */
ngx_str_node_t *ngx_mesh_names_find(ngx_mesh_names_t *names, const ngx_str_t *name);
/* Puts in a node with its `str` set. The name must have been looked up before, and not been found. */
void ngx_mesh_names_insert(ngx_mesh_names_t *names, ngx_str_node_t *node);
void ngx_mesh_names_delete(ngx_mesh_names_t *names, ngx_str_node_t *node);

#endif
