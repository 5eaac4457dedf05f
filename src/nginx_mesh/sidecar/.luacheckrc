std = "ngx_lua"
max_line_length = 120
read_globals = { ngx = { fields = { worker = { fields = { pids = {} } } } } }
