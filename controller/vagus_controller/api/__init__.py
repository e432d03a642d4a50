"""REST, the stream of changes, metrics, and the page: what the daemon shows, over HTTP."""
