#include "ngx_mesh_names.h"


ngx_str_node_t *
ngx_mesh_names_find(ngx_mesh_names_t *names, const ngx_str_t *name)
{
    if (names->tree.root == NULL) {
        ngx_rbtree_init(&names->tree, &names->sentinel, ngx_str_rbtree_insert_value);
        return NULL;
    }

    return ngx_str_rbtree_lookup(&names->tree, (ngx_str_t *) name, ngx_crc32_short(name->data, name->len));
}


void
ngx_mesh_names_insert(ngx_mesh_names_t *names, ngx_str_node_t *node)
{
    node->node.key = ngx_crc32_short(node->str.data, node->str.len);
    ngx_rbtree_insert(&names->tree, &node->node);
    names->n++;
}


void
ngx_mesh_names_delete(ngx_mesh_names_t *names, ngx_str_node_t *node)
{
    ngx_rbtree_delete(&names->tree, &node->node);
    names->n--;
}
