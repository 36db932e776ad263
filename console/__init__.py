"""People: the `distctl` commands and the terminal console."""
