"""What identity servers and agents share: keys, certificates, tokens, trust bundles, and how the two talk."""
