/* Reports are datagrams on a unix socket in the directory that the node shares with the sidecar. */

#include "ngx_mesh_report.h"

#include "ngx_mesh_lua.h"
#include "ngx_mesh_strings.h"

#include <sys/un.h>

ngx_mesh_reports_t  ngx_mesh_reports;

static ngx_uint_t   ngx_mesh_reports_dropped;


void
ngx_mesh_report_send(const u_char *data, size_t len)
{
    int                              size = 1 << 20;     /* for a burst; the kernel may grant less */
    static int                       fd = -1;
    static const struct sockaddr_un  node = { AF_UNIX, "/run/nginx-mesh/report.sock" };

    if (fd == -1) {
        fd = socket(AF_UNIX, SOCK_DGRAM|SOCK_NONBLOCK|SOCK_CLOEXEC, 0);
        (void) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }

    /* It is addressed by its path each time, because the node may have opened another socket there. */
    if (fd == -1
        || sendto(fd, data, len, MSG_DONTWAIT|MSG_NOSIGNAL, (const struct sockaddr *) &node, sizeof(node)) == -1)
    {
        ngx_mesh_reports_dropped++;
    }
}


static void
ngx_mesh_reports_update(void)
{
    ngx_mesh_reports.on = ngx_mesh_reports.tracing || ngx_mesh_reports.tap.on;
}


ngx_uint_t
ngx_mesh_tap_on(void)
{
    ngx_mesh_tap_t  *tap = &ngx_mesh_reports.tap;

    if (tap->on && (ngx_msec_int_t) (ngx_current_msec - tap->until) >= 0) {
        tap->on = 0;
        ngx_mesh_reports_update();
    }

    return tap->on;
}


ngx_uint_t
ngx_mesh_tap_take(void)
{
    ngx_mesh_tap_t  *tap = &ngx_mesh_reports.tap;

    if (!limit_admits(&tap->bucket, &tap->rate, (int64_t) ngx_current_msec)) {
        return 0;
    }

    limit_take(&tap->bucket, &tap->rate, (int64_t) ngx_current_msec);

    return 1;
}


ngx_int_t
ngx_mesh_ffi_tap(int64_t ms, uint32_t rate, ngx_uint_t lowest, ngx_uint_t highest, const char *method,
    size_t method_len, const char *path, size_t path_len, const char *peers, size_t peers_len)
{
    u_char          *p;
    ngx_str_t        method_str = ngx_mesh_str(method, method_len);
    ngx_str_t        path_str = ngx_mesh_str(path, path_len);
    ngx_str_t        peers_str = ngx_mesh_str(peers, peers_len);
    ngx_mesh_tap_t  *tap = &ngx_mesh_reports.tap;

    if (tap->texts) {
        ngx_free(tap->texts);
        tap->texts = NULL;
    }

    tap->on = 0;
    ngx_mesh_reports_update();

    if (ms == 0) {
        return NGX_OK;
    }

    p = ngx_mesh_alloc(1, method_len + path_len + peers_len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    tap->texts = p;
    p = ngx_mesh_str_copy(&tap->method, p, &method_str);
    p = ngx_mesh_str_copy(&tap->path, p, &path_str);
    (void) ngx_mesh_str_copy(&tap->peers, p, &peers_str);

    tap->lowest = lowest;
    tap->highest = highest;
    tap->until = ngx_current_msec + (ngx_msec_t) ms;
    tap->rate.rate = (uint64_t) rate * 1000;
    tap->rate.burst = (uint64_t) rate * 1000;
    tap->rate.delay = UINT64_MAX;
    tap->on = 1;
    ngx_mesh_reports_update();

    return NGX_OK;
}


void
ngx_mesh_ffi_tracing(double ratio)
{
    ngx_mesh_reports.tracing = ratio >= 0;
    ngx_mesh_reports_update();

    if (ngx_mesh_reports.tracing) {
        ngx_mesh_reports.sampler = trace_sampler_of(ratio);
    }
}


ngx_uint_t
ngx_mesh_ffi_reports_dropped_take(void)
{
    ngx_uint_t  n;

    n = ngx_mesh_reports_dropped;
    ngx_mesh_reports_dropped = 0;

    return n;
}
