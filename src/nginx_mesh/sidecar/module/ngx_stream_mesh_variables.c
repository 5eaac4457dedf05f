/*
 * Variables of nginx.conf. $mesh_listener is the internal listener that a connection is to be passed to. The others are
 * as in HTTP (ngx_http_mesh_variables.c).
 */

#include "ngx_stream_mesh.h"

#include "ngx_mesh_variables.h"

static ngx_int_t ngx_stream_mesh_variable_listener(ngx_stream_session_t *s, ngx_stream_variable_value_t *v,
    uintptr_t data);
static ngx_int_t ngx_stream_mesh_variable_original(ngx_stream_session_t *s, ngx_stream_variable_value_t *v,
    uintptr_t data);
static ngx_int_t ngx_stream_mesh_variable_peer(ngx_stream_session_t *s, ngx_stream_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_stream_mesh_variable_log(ngx_stream_session_t *s, ngx_stream_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_stream_mesh_variable_upstream_id(ngx_stream_session_t *s, ngx_stream_variable_value_t *v,
    uintptr_t data);
static ngx_int_t ngx_stream_mesh_variable_cluster(ngx_stream_session_t *s, ngx_stream_variable_value_t *v,
    uintptr_t data);
static ngx_int_t ngx_stream_mesh_variable_policy(ngx_stream_session_t *s, ngx_stream_variable_value_t *v,
    uintptr_t data);

static ngx_stream_variable_t  ngx_stream_mesh_variables[] = {
    { ngx_string("mesh_listener"), NULL, ngx_stream_mesh_variable_listener, 0, 0, 0 },
    { ngx_string("mesh_original_dst"), NULL, ngx_stream_mesh_variable_original, 0, 0, 0 },
    { ngx_string("mesh_peer_id"), NULL, ngx_stream_mesh_variable_peer, 0, 0, 0 },
    { ngx_string("mesh_log_default"), NULL, ngx_stream_mesh_variable_log, 0, 0, 0 },
    { ngx_string("mesh_log_json"), NULL, ngx_stream_mesh_variable_log, 1, 0, 0 },
    { ngx_string("mesh_upstream_id"), NULL, ngx_stream_mesh_variable_upstream_id, 0, NGX_STREAM_VAR_NOCACHEABLE, 0 },
    { ngx_string("mesh_cluster"), NULL, ngx_stream_mesh_variable_cluster, 0, 0, 0 },
    { ngx_string("mesh_policy"), NULL, ngx_stream_mesh_variable_policy, 0, NGX_STREAM_VAR_NOCACHEABLE, 0 },
    ngx_stream_null_variable
};


ngx_int_t
ngx_stream_mesh_variables_init(ngx_conf_t *cf)
{
    ngx_stream_variable_t  *var, *v;

    for (v = ngx_stream_mesh_variables; v->name.len; v++) {
        var = ngx_stream_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_mesh_variable_listener(ngx_stream_session_t *s, ngx_stream_variable_value_t *v, uintptr_t data)
{
    ngx_stream_mesh_ctx_t  *ctx;

    (void) data;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

    return ngx_mesh_variable_str(v, ctx ? &ctx->listener : NULL);
}


static ngx_int_t
ngx_stream_mesh_variable_original(ngx_stream_session_t *s, ngx_stream_variable_value_t *v, uintptr_t data)
{
    (void) data;

    return ngx_mesh_variable_original(s->connection, v);
}


static ngx_int_t
ngx_stream_mesh_variable_peer(ngx_stream_session_t *s, ngx_stream_variable_value_t *v, uintptr_t data)
{
    (void) data;

    return ngx_mesh_variable_peer(s->connection, v);
}


/* `data`: the format that this is the condition of. */
static ngx_int_t
ngx_stream_mesh_variable_log(ngx_stream_session_t *s, ngx_stream_variable_value_t *v, uintptr_t data)
{
    (void) s;

    return ngx_mesh_variable_log(v, data);
}


/* NULL: the connection is not balanced. */
static ngx_mesh_attempts_t *
ngx_stream_mesh_attempts(ngx_stream_session_t *s)
{
    ngx_stream_mesh_ctx_t  *ctx;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

    return ctx && ctx->balanced ? &ctx->attempts : NULL;
}


static ngx_int_t
ngx_stream_mesh_variable_upstream_id(ngx_stream_session_t *s, ngx_stream_variable_value_t *v, uintptr_t data)
{
    (void) data;

    return ngx_mesh_variable_upstream_id(ngx_stream_mesh_attempts(s), v);
}


static ngx_int_t
ngx_stream_mesh_variable_cluster(ngx_stream_session_t *s, ngx_stream_variable_value_t *v, uintptr_t data)
{
    (void) data;

    return ngx_mesh_variable_cluster(ngx_stream_mesh_attempts(s), v);
}


static ngx_int_t
ngx_stream_mesh_variable_policy(ngx_stream_session_t *s, ngx_stream_variable_value_t *v, uintptr_t data)
{
    ngx_stream_mesh_ctx_t  *ctx;

    (void) data;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_mesh_module);

    return ngx_mesh_variable_str(v, ctx ? &ctx->policy : NULL);
}
