-- Loads every module before workers are forked, so that they share the memory.

require "resty.core"
collectgarbage("collect")

require("cjson").encode_sparse_array(true)

for _, name in ipairs { "control", "inbound", "outbound", "probe", "status", "metrics", "explain" } do
    require("mesh." .. name)
end
