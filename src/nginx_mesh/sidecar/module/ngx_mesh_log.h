/*
 * The decisions that the sidecar makes about a request or connection, for whoever looks for the reason: with the error
 * log's level at debug each is a line that begins with "mesh decision:". At other levels a decision costs one
 * comparison.
 *
 * nginx's own ngx_log_debug needs an nginx that was built for debugging. This does not.
 */

#ifndef NGX_MESH_LOG_H
#define NGX_MESH_LOG_H

#include <ngx_config.h>
#include <ngx_core.h>

/* As printf, with nginx's conversions. The arguments are evaluated only when the line is written. */
#define ngx_mesh_log_decision(log, ...)                                                                                \
    do {                                                                                                               \
        if ((log)->log_level >= NGX_LOG_DEBUG) {                                                                       \
            ngx_log_error_core(NGX_LOG_DEBUG, log, 0, "mesh decision: " __VA_ARGS__);                                  \
        }                                                                                                              \
    } while (0)

/*
 * What somebody else wrote, as printable text of at most 200 bytes, for `%V`. It is valid until this has been called
 * eight more times. Only what is no secret belongs in a log: no value of a header, no query.
 */
ngx_str_t *ngx_mesh_log_text(const u_char *data, size_t len);

#endif
