#include "ngx_mesh_settings.h"

#include "ngx_mesh_authorization.h"

/* Lua knows these numbers of nginx's from ngx_mesh_lua.h. */
_Static_assert(NGX_MESH_RC_OK == NGX_OK && NGX_MESH_RC_BUSY == NGX_BUSY && NGX_MESH_RC_DECLINED == NGX_DECLINED
               && NGX_MESH_RC_ABORT == NGX_ABORT, "the return codes are nginx's");
_Static_assert(NGX_MESH_LOG_EMERG == NGX_LOG_EMERG && NGX_MESH_LOG_ALERT == NGX_LOG_ALERT
               && NGX_MESH_LOG_CRIT == NGX_LOG_CRIT && NGX_MESH_LOG_ERROR == NGX_LOG_ERR
               && NGX_MESH_LOG_WARN == NGX_LOG_WARN && NGX_MESH_LOG_NOTICE == NGX_LOG_NOTICE
               && NGX_MESH_LOG_INFO == NGX_LOG_INFO && NGX_MESH_LOG_DEBUG == NGX_LOG_DEBUG_ALL,
               "the levels of the error log are nginx's");

ngx_mesh_settings_t  ngx_mesh_settings;

ngx_conf_enum_t      ngx_mesh_directions[] = {
    { ngx_string("outbound"), NGX_MESH_OUTBOUND },
    { ngx_string("inbound"), NGX_MESH_INBOUND },
    { ngx_null_string, 0 }
};


/*
 * nginx.conf has one error_log, at its top. Connections copy its level from their listening socket, and those that are
 * open may stay open for hours, so that the level is set everywhere.
 */
static void
ngx_mesh_settings_log_level(ngx_uint_t log_level)
{
    ngx_uint_t         i;
    ngx_listening_t   *ls;
    ngx_connection_t  *c;

    ngx_cycle->log->log_level = log_level;

    ls = ngx_cycle->listening.elts;

    for (i = 0; i < ngx_cycle->listening.nelts; i++) {
        ls[i].log.log_level = log_level;
    }

    c = ngx_cycle->connections;

    for (i = 0; i < ngx_cycle->connection_n; i++) {
        if (c[i].fd != (ngx_socket_t) -1 && c[i].log) {
            c[i].log->log_level = log_level;
        }
    }
}


void
ngx_mesh_ffi_settings(ngx_uint_t mode, ngx_uint_t json_log, ngx_uint_t log_level, int64_t body_limit)
{
    ngx_mesh_settings.ready = 1;
    ngx_mesh_settings.mode = mode;
    ngx_mesh_settings.json_log = json_log;
    ngx_mesh_settings.body_limit = body_limit;

    ngx_mesh_settings_log_level(log_level);
    ngx_mesh_authorization_changed();
}
