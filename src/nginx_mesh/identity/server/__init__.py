"""The identity server: a SPIFFE authority with its CAs, registrations, datastore and upstream authorities."""
