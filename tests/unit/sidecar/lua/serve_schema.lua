-- Lets Python ask the sidecar's schema: one question in JSON a line, one answer in JSON a line.
--
--   {"shapes": true}             all shapes; numbers are texts, as cjson rounds them
--   {"key": …, "entry": …}       the reason why an entry is refused, or null
--   {"update": …}                the same of an update

require "standins"
local cjson = require "cjson"
local schema = require "mesh.schema"
local shapes = require "mesh.schema.shapes"


local function with_exact_numbers(value)
    if type(value) == "number" then
        return ("%.17g"):format(value)
    end

    if type(value) ~= "table" then
        return value
    end

    local copy = {}

    for key, item in pairs(value) do
        copy[key] = with_exact_numbers(item)
    end

    return copy
end


for line in io.lines() do
    local question = cjson.decode(line)
    local answer

    if question.shapes then
        answer = with_exact_numbers(shapes)
    elseif question.update then
        answer = schema.check_update(question.update)
    else
        answer = schema.check_entry(question.key, question.entry)
    end

    io.write(cjson.encode(answer == nil and cjson.null or answer), "\n")
    io.flush()
end
