"""Host to device and back: packs candidates into chunks that fit, compiles once per shape, dispatches."""
