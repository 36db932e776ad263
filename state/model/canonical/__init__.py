"""The canonical entities, one file each, versioned. Field names and rules follow the page "Canonical entities"."""
