"""Who may come in, and as what: users, sessions, API tokens. Knows nothing of HTTP and nothing of the fleet."""
