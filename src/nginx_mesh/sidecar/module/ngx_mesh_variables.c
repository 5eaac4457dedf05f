#include "ngx_mesh_variables.h"

#include "ngx_mesh_connection.h"
#include "ngx_mesh_settings.h"


void
ngx_mesh_variable_set(ngx_variable_value_t *v, u_char *data, size_t len)
{
    v->data = data;
    v->len = len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = (len == 0);
}


ngx_int_t
ngx_mesh_variable_original(ngx_connection_t *c, ngx_variable_value_t *v)
{
    ngx_mesh_connection_t  *mc;

    mc = ngx_mesh_connection(c);
    if (mc == NULL) {
        return NGX_ERROR;
    }

    ngx_mesh_variable_set(v, mc->name.data, mc->name.len);

    return NGX_OK;
}


ngx_int_t
ngx_mesh_variable_peer(ngx_connection_t *c, ngx_variable_value_t *v)
{
    ngx_str_t  id;

    if (c->ssl == NULL || ngx_mesh_connection_peer(c, &id) != NGX_OK) {
        ngx_str_null(&id);
    }

    ngx_mesh_variable_set(v, id.data, id.len);

    return NGX_OK;
}


ngx_int_t
ngx_mesh_variable_log(ngx_variable_value_t *v, uintptr_t json)
{
    ngx_mesh_variable_set(v, (u_char *) "1", ngx_mesh_settings.json_log == json);

    return NGX_OK;
}


ngx_int_t
ngx_mesh_variable_cluster(const ngx_mesh_attempts_t *a, ngx_variable_value_t *v)
{
    ngx_str_t  none = ngx_null_string;
    ngx_str_t  name = a ? a->cluster->node.str : none;

    ngx_mesh_variable_set(v, name.data, name.len);

    return NGX_OK;
}


ngx_int_t
ngx_mesh_variable_upstream_id(const ngx_mesh_attempts_t *a, ngx_variable_value_t *v)
{
    ngx_str_t  none = ngx_null_string;
    ngx_str_t  id = a && a->tls ? a->last_id : none;

    ngx_mesh_variable_set(v, id.data, id.len);

    return NGX_OK;
}
