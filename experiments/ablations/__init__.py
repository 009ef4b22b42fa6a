"""What makes a small model learn in a minute of one processor core: docs/small-data.md."""
