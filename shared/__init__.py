"""What coordinator and worker agree on: words, wire shapes, pure decisions. No database, no web."""

__version__ = "0.1.0"
