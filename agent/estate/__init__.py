"""The estate folder: reading it, checking it, compiling it for the runtime, and its JSON Schema for editors."""
