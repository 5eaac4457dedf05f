/*
 * The stream side of the module: directives and set-up.
 *
 * `mesh_sort outbound|inbound` in a server decides which internal listener a connection is passed to ($mesh_listener).
 * `mesh_role outbound|inbound` is for the servers that carry TCP. `mesh_tls`, `mesh_balance` and `mesh_forward` are as
 * in HTTP.
 */

#include "ngx_stream_mesh.h"

#include "ngx_mesh_handshake.h"

static ngx_int_t ngx_stream_mesh_postconfiguration(ngx_conf_t *cf);
static void *ngx_stream_mesh_create_srv_conf(ngx_conf_t *cf);
static char *ngx_stream_mesh_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child);
static char *ngx_stream_mesh_upstream(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

static ngx_stream_upstream_init_pt  ngx_stream_mesh_balance_upstream = ngx_stream_mesh_balance_init;
static ngx_stream_upstream_init_pt  ngx_stream_mesh_forward_upstream = ngx_stream_mesh_forward_init;


static ngx_command_t  ngx_stream_mesh_commands[] = {

    { ngx_string("mesh_sort"),
      NGX_STREAM_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_STREAM_SRV_CONF_OFFSET,
      offsetof(ngx_stream_mesh_srv_conf_t, sort),
      ngx_mesh_directions },

    { ngx_string("mesh_role"),
      NGX_STREAM_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_STREAM_SRV_CONF_OFFSET,
      offsetof(ngx_stream_mesh_srv_conf_t, role),
      ngx_mesh_directions },

    { ngx_string("mesh_tls"),
      NGX_STREAM_MAIN_CONF|NGX_STREAM_SRV_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_STREAM_SRV_CONF_OFFSET,
      offsetof(ngx_stream_mesh_srv_conf_t, tls),
      NULL },

    { ngx_string("mesh_balance"),
      NGX_STREAM_UPS_CONF|NGX_CONF_NOARGS,
      ngx_stream_mesh_upstream,
      0,
      0,
      &ngx_stream_mesh_balance_upstream },

    { ngx_string("mesh_forward"),
      NGX_STREAM_UPS_CONF|NGX_CONF_NOARGS,
      ngx_stream_mesh_upstream,
      0,
      0,
      &ngx_stream_mesh_forward_upstream },

    ngx_null_command
};


static ngx_stream_module_t  ngx_stream_mesh_module_ctx = {
    ngx_stream_mesh_variables_init,
    ngx_stream_mesh_postconfiguration,
    NULL,
    NULL,
    ngx_stream_mesh_create_srv_conf,
    ngx_stream_mesh_merge_srv_conf
};


ngx_module_t  ngx_stream_mesh_module = {
    NGX_MODULE_V1,
    &ngx_stream_mesh_module_ctx,
    ngx_stream_mesh_commands,
    NGX_STREAM_MODULE,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_stream_mesh_add_handler(ngx_stream_core_main_conf_t *cmcf, ngx_stream_phases phase, ngx_stream_handler_pt handler)
{
    ngx_stream_handler_pt  *h;

    h = ngx_array_push(&cmcf->phases[phase].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = handler;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_mesh_postconfiguration(ngx_conf_t *cf)
{
    ngx_uint_t                     i;
    ngx_stream_ssl_srv_conf_t     *sscf;
    ngx_stream_mesh_srv_conf_t    *mscf;
    ngx_stream_core_srv_conf_t   **cscfp;
    ngx_stream_core_main_conf_t   *cmcf;

    cmcf = ngx_stream_conf_get_module_main_conf(cf, ngx_stream_core_module);

    if (ngx_stream_mesh_add_handler(cmcf, NGX_STREAM_ACCESS_PHASE, ngx_stream_mesh_sort_handler) != NGX_OK
        || ngx_stream_mesh_add_handler(cmcf, NGX_STREAM_PREREAD_PHASE, ngx_stream_mesh_access_handler) != NGX_OK
        || ngx_stream_mesh_add_handler(cmcf, NGX_STREAM_LOG_PHASE, ngx_stream_mesh_log_handler) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_stream_mesh_filter_init();
    ngx_stream_mesh_access_init();

    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        mscf = cscfp[i]->ctx->srv_conf[ngx_stream_mesh_module.ctx_index];
        sscf = cscfp[i]->ctx->srv_conf[ngx_stream_ssl_module.ctx_index];

        if (mscf->tls && sscf->ssl.ctx && ngx_mesh_handshake_serve(sscf->ssl.ctx, 1) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static void *
ngx_stream_mesh_create_srv_conf(ngx_conf_t *cf)
{
    ngx_stream_mesh_srv_conf_t  *conf;

    conf = ngx_palloc(cf->pool, sizeof(ngx_stream_mesh_srv_conf_t));
    if (conf) {
        conf->sort = NGX_CONF_UNSET_UINT;
        conf->role = NGX_CONF_UNSET_UINT;
        conf->tls = NGX_CONF_UNSET;
    }

    return conf;
}


static char *
ngx_stream_mesh_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_stream_mesh_srv_conf_t  *prev = parent;
    ngx_stream_mesh_srv_conf_t  *conf = child;

    (void) cf;

    ngx_conf_merge_uint_value(conf->sort, prev->sort, NGX_MESH_NONE);
    ngx_conf_merge_uint_value(conf->role, prev->role, NGX_MESH_NONE);
    ngx_conf_merge_value(conf->tls, prev->tls, 0);

    return NGX_CONF_OK;
}


/* `cmd->post` points at the function that initialises the upstream. */
static char *
ngx_stream_mesh_upstream(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_upstream_init_pt     *init = cmd->post;
    ngx_stream_upstream_srv_conf_t  *us;

    (void) conf;

    us = ngx_stream_conf_get_module_srv_conf(cf, ngx_stream_upstream_module);
    us->peer.init_upstream = *init;
    us->flags = NGX_STREAM_UPSTREAM_CREATE;

    return NGX_CONF_OK;
}
