"""The dashboard: a small server of a web page (`static/`) that shows what a local mesh's daemon knows."""
