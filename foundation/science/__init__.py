"""Evidence: what stored answers say about sharing one foundation. Reads results; never trains, needs no torch."""
