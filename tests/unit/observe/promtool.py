"""`promtool check metrics` for the metrics of a process."""

from __future__ import annotations

import subprocess


def complaints(exposition: str) -> str:
    """What promtool finds wrong with the text, "" for nothing."""
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=exposition, capture_output=True, text=True, check=False, timeout=30
    )
    said = (checked.stdout + checked.stderr).strip()
    return said if said or checked.returncode == 0 else f"exit code {checked.returncode}"
