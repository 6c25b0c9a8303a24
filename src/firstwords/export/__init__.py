"""See the modules of this room; docs/architecture.md draws the house."""
