-- Writes lines of Prometheus' text format. There may be tens of thousands of lines, so a line is put together of
-- fragments that most lines share and never becomes a string of its own. Pure: the text goes to a function.

local _M = {}
_M.__index = _M

local LINES_PER_WRITE = 500
local EXACT = 1e14                                      -- Lua writes larger numbers with fewer digits than they have


-- `pod` are the labels that all lines have. `bounds` are the upper bounds of the buckets of histograms. `write(list)`
-- gets lists of fragments.
function _M.new(pod, bounds, write)
    local le = {}

    for i = 1, #bounds + 1 do
        le[i] = ',le="' .. (bounds[i] or "+Inf") .. '"'
    end

    return setmetatable({ pod = "{" .. pod, le = le, write = write, fragments = {}, n = 0, lines = 0 }, _M)
end


-- Writes what is not written yet.
function _M:flush()
    self.write(self.fragments)
    self.fragments, self.n, self.lines = {}, 0, 0
end


-- The lines that come before those of a family.
function _M:head(name, kind, help)
    local fragments, n = self.fragments, self.n

    fragments[n + 1] = "# HELP " .. name .. " " .. help .. "\n"
    fragments[n + 2] = "# TYPE " .. name .. " " .. kind .. "\n"

    self.n = n + 2
end


-- `name` and `suffix` together are the name. `own`, `more` and `last` are labels, with a comma before each.
function _M:line(name, suffix, own, more, last, value)
    local fragments, n = self.fragments, self.n

    fragments[n + 1] = name
    fragments[n + 2] = suffix
    fragments[n + 3] = self.pod
    fragments[n + 4] = own
    fragments[n + 5] = more
    fragments[n + 6] = last
    fragments[n + 7] = "} "
    fragments[n + 8] = value < EXACT and value or string.format("%d", value)
    fragments[n + 9] = "\n"

    self.n = n + 9
    self.lines = self.lines + 1

    if self.lines == LINES_PER_WRITE then
        self:flush()
    end
end


-- The lines of a histogram. Its buckets count separately; Prometheus wants each to include those below it.
function _M:histogram(name, own, more, histogram)
    local n = 0

    for i = 1, #self.le do
        n = n + (histogram[i] or 0)
        self:line(name, "_bucket", own, more, self.le[i], n)
    end

    self:line(name, "_sum", own, more, "", histogram.sum or 0)
    self:line(name, "_count", own, more, "", n)
end


return _M
