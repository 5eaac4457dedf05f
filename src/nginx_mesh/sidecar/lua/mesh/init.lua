-- Loads every module before workers are forked, so that they share the memory.

require "resty.core"
collectgarbage("collect")

require("cjson").encode_sparse_array(true)

for _, name in ipairs {
    "engine", "schema", "state", "control", "grpc_codes", "deny", "families", "series", "metrics", "outbound",
    "inbound", "probe", "status", "explain",
} do
    require("mesh." .. name)
end
