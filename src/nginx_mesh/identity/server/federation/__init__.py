"""Federation per the SPIFFE standard: our trust bundle for others (endpoint), and theirs for us (poller)."""
