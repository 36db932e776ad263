"""The canonical entities, one file each."""
