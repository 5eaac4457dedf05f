/*
 * The HTTP side of the module: directives and set-up.
 *
 * `mesh_balance` and `mesh_forward` in an upstream (before `keepalive`) choose endpoints, and the application.
 * `mesh_tls on` in a server makes it use the pod's identity. `mesh_role outbound|inbound` in a server or location lets
 * requests pass that the tables allow, without asking Lua. `mesh_count on` there counts requests.
 */

#include "ngx_http_mesh.h"

#include "ngx_mesh_buckets.h"
#include "ngx_mesh_handshake.h"

static ngx_int_t ngx_http_mesh_postconfiguration(ngx_conf_t *cf);
static void *ngx_http_mesh_create_srv_conf(ngx_conf_t *cf);
static char *ngx_http_mesh_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child);
static void *ngx_http_mesh_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_mesh_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child);
static char *ngx_http_mesh_upstream(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

static ngx_http_upstream_init_pt  ngx_http_mesh_balance_upstream = ngx_http_mesh_balance_init;
static ngx_http_upstream_init_pt  ngx_http_mesh_forward_upstream = ngx_http_mesh_forward_init;


static ngx_command_t  ngx_http_mesh_commands[] = {

    { ngx_string("mesh_balance"),
      NGX_HTTP_UPS_CONF|NGX_CONF_NOARGS,
      ngx_http_mesh_upstream,
      0,
      0,
      &ngx_http_mesh_balance_upstream },

    { ngx_string("mesh_forward"),
      NGX_HTTP_UPS_CONF|NGX_CONF_NOARGS,
      ngx_http_mesh_upstream,
      0,
      0,
      &ngx_http_mesh_forward_upstream },

    { ngx_string("mesh_tls"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_SRV_CONF_OFFSET,
      offsetof(ngx_http_mesh_srv_conf_t, tls),
      NULL },

    { ngx_string("mesh_role"),
      NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_mesh_loc_conf_t, role),
      ngx_mesh_directions },

    { ngx_string("mesh_count"),
      NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_mesh_loc_conf_t, count),
      NULL },

    ngx_null_command
};


static ngx_http_module_t  ngx_http_mesh_module_ctx = {
    ngx_http_mesh_variables_init,
    ngx_http_mesh_postconfiguration,
    NULL,
    NULL,
    ngx_http_mesh_create_srv_conf,
    ngx_http_mesh_merge_srv_conf,
    ngx_http_mesh_create_loc_conf,
    ngx_http_mesh_merge_loc_conf
};


ngx_module_t  ngx_http_mesh_module = {
    NGX_MODULE_V1,
    &ngx_http_mesh_module_ctx,
    ngx_http_mesh_commands,
    NGX_HTTP_MODULE,
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
ngx_http_mesh_add_handler(ngx_http_core_main_conf_t *cmcf, ngx_http_phases phase, ngx_http_handler_pt handler)
{
    ngx_http_handler_pt  *h;

    h = ngx_array_push(&cmcf->phases[phase].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = handler;

    return NGX_OK;
}


static ngx_int_t
ngx_http_mesh_postconfiguration(ngx_conf_t *cf)
{
    ngx_uint_t                   i;
    ngx_http_ssl_srv_conf_t     *sscf;
    ngx_http_core_srv_conf_t   **cscfp;
    ngx_http_core_main_conf_t   *cmcf;
    ngx_http_mesh_srv_conf_t    *mscf;
    ngx_http_mesh_loc_conf_t    *mlcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        mscf = cscfp[i]->ctx->srv_conf[ngx_http_mesh_module.ctx_index];
        mlcf = cscfp[i]->ctx->loc_conf[ngx_http_mesh_module.ctx_index];
        sscf = cscfp[i]->ctx->srv_conf[ngx_http_ssl_module.ctx_index];

        if (mscf->tls && sscf->ssl.ctx && ngx_mesh_handshake_serve(sscf->ssl.ctx, mlcf->count) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    ngx_http_mesh_filters_init();

    if (ngx_mesh_buckets_configure(cf, &ngx_http_mesh_module) != NGX_OK
        || ngx_http_mesh_add_handler(cmcf, NGX_HTTP_ACCESS_PHASE, ngx_http_mesh_access_handler) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_mesh_add_handler(cmcf, NGX_HTTP_LOG_PHASE, ngx_http_mesh_log_handler);
}


static void *
ngx_http_mesh_create_srv_conf(ngx_conf_t *cf)
{
    ngx_http_mesh_srv_conf_t  *conf;

    conf = ngx_palloc(cf->pool, sizeof(ngx_http_mesh_srv_conf_t));
    if (conf) {
        conf->tls = NGX_CONF_UNSET;
    }

    return conf;
}


static char *
ngx_http_mesh_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_mesh_srv_conf_t  *prev = parent;
    ngx_http_mesh_srv_conf_t  *conf = child;

    (void) cf;

    ngx_conf_merge_value(conf->tls, prev->tls, 0);

    return NGX_CONF_OK;
}


static void *
ngx_http_mesh_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_mesh_loc_conf_t  *conf;

    conf = ngx_palloc(cf->pool, sizeof(ngx_http_mesh_loc_conf_t));
    if (conf) {
        conf->role = NGX_CONF_UNSET_UINT;
        conf->count = NGX_CONF_UNSET;
    }

    return conf;
}


static char *
ngx_http_mesh_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_mesh_loc_conf_t  *prev = parent;
    ngx_http_mesh_loc_conf_t  *conf = child;

    (void) cf;

    ngx_conf_merge_uint_value(conf->role, prev->role, NGX_MESH_NONE);
    ngx_conf_merge_value(conf->count, prev->count, 0);

    return NGX_CONF_OK;
}


/* `cmd->post` points at the function that initialises the upstream. */
static char *
ngx_http_mesh_upstream(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_upstream_init_pt     *init = cmd->post;
    ngx_http_upstream_srv_conf_t  *us;

    (void) conf;

    us = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);
    us->peer.init_upstream = *init;
    us->flags = NGX_HTTP_UPSTREAM_CREATE;

    return NGX_CONF_OK;
}
