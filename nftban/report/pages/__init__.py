"""Pages for a browser: each one file, without scripts, and without anything that is fetched from elsewhere."""
