"""Files of users and caches: tables with line numbers, checksums, where things are kept."""
