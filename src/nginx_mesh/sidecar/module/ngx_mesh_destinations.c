#include "ngx_mesh_destinations.h"

#include "ngx_mesh_lua.h"
#include "ngx_mesh_names.h"
#include "ngx_mesh_strings.h"

static ngx_mesh_names_t  ngx_mesh_destinations;


ngx_mesh_destination_t *
ngx_mesh_destination_find(const ngx_str_t *address)
{
    return (ngx_mesh_destination_t *) ngx_mesh_names_find(&ngx_mesh_destinations, address);
}


static void
ngx_mesh_destination_delete(const ngx_str_t *address)
{
    ngx_mesh_destination_t  *d;

    d = ngx_mesh_destination_find(address);
    if (d) {
        ngx_mesh_names_delete(&ngx_mesh_destinations, &d->node);
        ngx_free(d);
    }
}


void
ngx_mesh_ffi_destination_delete(const char *address, size_t len)
{
    ngx_str_t  str = ngx_mesh_str(address, len);

    ngx_mesh_destination_delete(&str);
}


ngx_int_t
ngx_mesh_ffi_destination_put(const char *address, size_t address_len, ngx_uint_t protocols, const char *cluster,
    size_t cluster_len, const char *service, size_t service_len)
{
    u_char                  *p;
    ngx_str_t                address_str = ngx_mesh_str(address, address_len);
    ngx_str_t                cluster_str = ngx_mesh_str(cluster, cluster_len);
    ngx_str_t                service_str = ngx_mesh_str(service, service_len);
    ngx_mesh_destination_t  *d;

    d = ngx_mesh_alloc(sizeof(ngx_mesh_destination_t), address_len + cluster_len + service_len);
    if (d == NULL) {
        return NGX_ERROR;
    }

    ngx_mesh_destination_delete(&address_str);

    p = ngx_mesh_str_copy(&d->node.str, (u_char *) (d + 1), &address_str);
    p = ngx_mesh_str_copy(&d->cluster, p, &cluster_str);
    (void) ngx_mesh_str_copy(&d->service, p, &service_str);
    d->protocols = protocols;

    ngx_mesh_names_insert(&ngx_mesh_destinations, &d->node);

    return NGX_OK;
}
