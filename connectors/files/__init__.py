"""Files in folders: a source that reads each file once, a sink that writes atomically."""
