/* Settings of the whole sidecar. */

#ifndef NGX_MESH_SETTINGS_H
#define NGX_MESH_SETTINGS_H

#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mesh_lua.h"

typedef struct {
    ngx_uint_t       ready;             /* a state was received; before that nothing passes */
    ngx_mesh_mode_e  mode;
    ngx_uint_t       json_log;
    off_t            body_limit;        /* bytes; 0: none */
} ngx_mesh_settings_t;

extern ngx_mesh_settings_t  ngx_mesh_settings;

typedef enum {
    NGX_MESH_NONE = 0,
    NGX_MESH_OUTBOUND,                  /* from the application */
    NGX_MESH_INBOUND                    /* from the wire */
} ngx_mesh_direction_e;

/* The values of the directives mesh_sort and mesh_role. */
extern ngx_conf_enum_t  ngx_mesh_directions[];

#endif
