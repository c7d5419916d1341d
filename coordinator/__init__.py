"""The coordinator: REST API, all state, and the dispatcher."""
