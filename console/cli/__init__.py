"""The `distctl` commands, one file a group."""
