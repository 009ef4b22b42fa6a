"""Finding footage: windows that are like a clip, and videos that are copies of others."""
