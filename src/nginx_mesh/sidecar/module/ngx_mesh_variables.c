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
ngx_mesh_variable_str(ngx_variable_value_t *v, const ngx_str_t *value)
{
    if (value) {
        ngx_mesh_variable_set(v, value->data, value->len);
    } else {
        ngx_mesh_variable_set(v, NULL, 0);
    }

    return NGX_OK;
}


ngx_int_t
ngx_mesh_variable_original(ngx_connection_t *c, ngx_variable_value_t *v)
{
    ngx_mesh_connection_t  *mc;

    mc = ngx_mesh_connection(c);
    if (mc == NULL) {
        return NGX_ERROR;
    }

    return ngx_mesh_variable_str(v, &mc->name);
}


ngx_int_t
ngx_mesh_variable_peer(ngx_connection_t *c, ngx_variable_value_t *v)
{
    ngx_str_t  id;

    if (c->ssl == NULL || ngx_mesh_connection_peer(c, &id) != NGX_OK) {
        ngx_str_null(&id);
    }

    return ngx_mesh_variable_str(v, &id);
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
    return ngx_mesh_variable_str(v, a ? &a->cluster->node.str : NULL);
}


ngx_int_t
ngx_mesh_variable_upstream_id(const ngx_mesh_attempts_t *a, ngx_variable_value_t *v)
{
    return ngx_mesh_variable_str(v, a && a->tls ? &a->last_id : NULL);
}
