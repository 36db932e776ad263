"""Pure codecs: bytes to records and back."""
