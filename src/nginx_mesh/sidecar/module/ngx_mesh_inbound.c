#include "ngx_mesh_inbound.h"

#include "ngx_mesh_authorization.h"
#include "ngx_mesh_policy.h"

static struct {
    u_char              protocols;
    ngx_mesh_policy_t  *policy;
} ngx_mesh_inbound[65536];


ngx_uint_t
ngx_mesh_inbound_find(in_port_t port)
{
    return ngx_mesh_inbound[port].protocols;
}


ngx_mesh_policy_t *
ngx_mesh_inbound_policy(in_port_t port)
{
    return ngx_mesh_inbound[port].policy;
}


void
ngx_mesh_ffi_inbound(ngx_uint_t port, ngx_uint_t protocols, ngx_mesh_policy_t *policy)
{
    ngx_mesh_policy_free(ngx_mesh_inbound[port & 0xffff].policy);

    ngx_mesh_inbound[port & 0xffff].protocols = (u_char) protocols;
    ngx_mesh_inbound[port & 0xffff].policy = policy;

    ngx_mesh_authorization_changed();
}
