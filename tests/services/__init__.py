"""Real servers for the tests: private, on loopback, gone when the tests are gone."""
