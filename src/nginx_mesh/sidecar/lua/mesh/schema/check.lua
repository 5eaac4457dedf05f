-- Checks values, as they come out of JSON, against shapes (schema/shapes.lua).

local cjson = require "cjson"
local formats = require "mesh.schema.formats"

local null = cjson.null
local pairs, ipairs, type = pairs, ipairs, type

local check

-- Checks of the fields of a struct together.
local RULES = {
    mtls_needs_spiffe_id = function(value)
        if value.tls and (value.spiffe_id or "") == "" then
            return "lacks the spiffe_id that mTLS needs"
        end
    end,
}


local function is_in(list, value)
    for _, each in ipairs(list) do
        if each == value then
            return true
        end
    end

    return false
end


-- By type of the shape: return nil, or the reason why the value does not have it.
local CHECKS = {
    any = function() end,

    string = function(shape, value)
        if shape.enum then
            if type(value) ~= "string" or not is_in(shape.enum, value) then
                return "must be one of " .. table.concat(shape.enum, ", ")
            end
        elseif type(value) ~= "string" then
            return "must be a string"
        elseif shape.format then
            return formats[shape.format](value)
        end
    end,

    boolean = function(_, value)
        if type(value) ~= "boolean" then
            return "must be true or false"
        end
    end,

    integer = function(shape, value)
        if type(value) ~= "number" or value % 1 ~= 0 or value < shape.low or value > shape.high then
            return "must be a whole number from " .. shape.low .. " to " .. shape.high
        end
    end,

    -- The comparisons are written so that NaN fails them.
    number = function(shape, value)
        if type(value) ~= "number" or not (value >= shape.low and value <= shape.high) then
            return "must be a number from " .. shape.low .. " to " .. shape.high
        end
    end,

    list = function(shape, value)
        if type(value) ~= "table" then
            return "must be a list"
        end

        local n = 0
        for _ in pairs(value) do
            n = n + 1
        end

        if n ~= #value then
            return "must be a list"
        end

        for i = 1, n do
            local reason = check(shape.items, value[i])
            if reason then
                return "[" .. (i - 1) .. "]: " .. reason
            end
        end
    end,

    map = function(shape, value)
        if type(value) ~= "table" then
            return "must be an object"
        end

        local key_format = formats[shape.key_format or "text"]

        for k, v in pairs(value) do
            local reason

            -- JSON lists are tables, too: their keys are numbers.
            if type(k) ~= "string" then
                reason = "must be a string"
            else
                reason = key_format(k) or check(shape.values, v)
            end

            if reason then
                return '"' .. tostring(k) .. '": ' .. reason
            end
        end
    end,

    struct = function(shape, value)
        if type(value) ~= "table" then
            return "must be an object"
        end

        for name in pairs(shape.required) do
            if value[name] == nil then
                return "lacks " .. name
            end
        end

        for name, v in pairs(value) do
            local field = shape.required[name] or shape.optional[name]
            if not field then
                return "has an unknown field " .. tostring(name)
            end

            local reason = check(field, v)
            if reason then
                return name .. " " .. reason
            end
        end

        if shape.rule then
            return RULES[shape.rule](value)
        end
    end,
}


-- Returns nil, or the reason why the value does not have the shape.
function check(shape, value)
    if shape.nullable and value == null then
        return nil
    end

    return CHECKS[shape.type](shape, value)
end


return check
