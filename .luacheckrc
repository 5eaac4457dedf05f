std = "ngx_lua"
max_line_length = 120
read_globals = { ngx = { fields = { worker = { fields = { pids = {} } } } } }

-- Tests replace what they need of nginx.
files["tests/unit/sidecar/lua"] = { std = "luajit+busted", globals = { "ngx" } }

-- Each row of this table is one line, which scripts/reference.py reads.
files["src/nginx_mesh/sidecar/lua/mesh/families.lua"] = { max_line_length = false }
