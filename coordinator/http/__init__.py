"""The only Flask machinery: declarations of endpoints, and everything between a socket and a handler."""
