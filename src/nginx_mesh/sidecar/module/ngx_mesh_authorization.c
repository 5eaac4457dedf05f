#include "ngx_mesh_authorization.h"

#include <stddef.h>

static ngx_mesh_authorization_handler_pt  ngx_mesh_authorization_handler;


void
ngx_mesh_authorization_on_change(ngx_mesh_authorization_handler_pt handler)
{
    ngx_mesh_authorization_handler = handler;
}


void
ngx_mesh_authorization_changed(void)
{
    if (ngx_mesh_authorization_handler) {
        ngx_mesh_authorization_handler();
    }
}
