"""What an identity server remembers: registrations, attested nodes, join tokens, bundles, CA journals."""
