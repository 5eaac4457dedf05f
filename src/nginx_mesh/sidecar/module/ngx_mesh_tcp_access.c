#include "ngx_mesh_tcp_access.h"

#include "ngx_mesh_connection.h"
#include "ngx_mesh_inbound.h"
#include "ngx_mesh_policy.h"
#include "ngx_mesh_settings.h"

const char  ngx_mesh_tcp_denied[] = "access denied";


const char *
ngx_mesh_tcp_access(ngx_connection_t *c, ngx_uint_t tls, ngx_str_t *by)
{
    ngx_str_t               id = ngx_null_string;
    ngx_mesh_connection_t  *mc;

    mc = ngx_mesh_connection(c);
    ngx_str_null(by);

    if (!(ngx_mesh_inbound_find(mc->port) & NGX_MESH_PROTOCOL_TCP)) {
        return "no container declares this port for TCP";
    }

    if (!tls && ngx_mesh_settings.mode == NGX_MESH_STRICT) {
        return "the caller speaks plaintext and mTLS is strict";
    }

    if (tls && ngx_mesh_connection_peer(c, &id) != NGX_OK) {
        return "the caller proved no SPIFFE ID";
    }

    return ngx_mesh_policy_allows(ngx_mesh_inbound_policy(mc->port), &id, NULL, by) ? NULL : ngx_mesh_tcp_denied;
}
