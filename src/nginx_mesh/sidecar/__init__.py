"""The sidecar: nginx.conf, Lua, the C module, and the recipe of the image that holds them."""
